"""Measures of attention heads: previous token, duplicate token, induction, first token, entropy, distance, copying."""

# For each measure, in the order of tables and menus, a sentence that says what to look for.
MEASURES = {
    "previous_token": "Share of attention on the token just before; near 1 in a head that copies each token's "
    "predecessor forward, the first half of an induction circuit.",
    "duplicate_token": "Share of attention on earlier occurrences of the same token; chance level is the share of such "
    "tokens in the text.",
    "induction": "Share of attention on the token that followed an earlier occurrence of the current one; near 1 in a "
    "head that continues repeated text.",
    "first_token": "Share of attention on the first token; above 0.5 the head mostly rests there (an attention sink).",
    "entropy": "Spread of attention: 1 is uniform over all earlier tokens, 0 is all on a single one.",
    "distance": "Mean number of tokens that a head looks back, weighted by attention.",
    "copying": "Copying by the weights alone: near 1, attending to a token raises the logit of the same token; below 0 "
    "it lowers it.",
}
