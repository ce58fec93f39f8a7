"""TF-IDF baseline of `scratch classify`: a linear classifier on words and word pairs, without a neural network.

Linear support vector machines on such features are strong on topics and intents (S. Wang and C. Manning, "Baselines and
Bigrams: Simple, Good Sentiment and Topic Classification", ACL 2012). One fit takes about a second on 9,000 short texts
with 77 labels, where multinomial logistic regression takes ten to a hundred, at the same accuracy.
"""

import random
import warnings
from collections import Counter, defaultdict

NAME = "linear SVM on TF-IDF"
# Bounds of the time, which grows with the text and with text times labels: at most a few minutes.
MAX_CHARACTERS, MAX_CHARACTERS_TIMES_LABELS = 40_000_000, 300_000_000
MAX_TEXT = 100_000  # characters used of a text
_STRENGTHS = (0.1, 1.0, 10.0)  # inverse regularization
_PASSES = 50  # over the texts in one fit


def tfidf_baseline(
    train: tuple[list[str], list[str]], validation: tuple[list[str], list[str]], texts: list[str], seed: int
) -> list[str]:
    """Labels predicted by a linear SVM, regularized as `validation` prefers.

    Prints what it fits. If the training texts exceed the bounds of this file, a sample of them is used.

    Args:
        train, validation: texts and labels, of two labels or more.
        texts: the texts to label.
        seed: of the sample.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    chosen = sample(*train, seed)
    of = "" if len(chosen) == len(train[0]) else f" of {len(train[0]):,}, a sample that bounds the time"
    print(f"classify: fitting the baseline, a {NAME}, on {len(chosen):,} texts{of}", flush=True)
    labels = [train[1][place] for place in chosen]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]+")
    features = vectorizer.fit_transform(train[0][place][:MAX_TEXT] for place in chosen)
    held_out = vectorizer.transform(text[:MAX_TEXT] for text in validation[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the passes are bounded
        fitted = [LinearSVC(C=c, max_iter=_PASSES, random_state=seed).fit(features, labels) for c in _STRENGTHS]
    best = max(fitted, key=lambda model: model.score(held_out, validation[1]))
    return best.predict(vectorizer.transform(text[:MAX_TEXT] for text in texts)).tolist()


def sample(texts: list[str], labels: list[str], seed: int) -> list[int]:
    """Places of the texts to fit, in order: all that fit the bounds, with every label in proportion."""
    counts = Counter(labels)
    classifiers = len(counts) if len(counts) > 2 else 1
    left = min(MAX_CHARACTERS, MAX_CHARACTERS_TIMES_LABELS // classifiers)
    of_label = defaultdict(list)
    for place, label in enumerate(labels):
        of_label[label].append(place)
    ordered = []  # the first text of each label first, then in proportion
    for label, places in sorted(of_label.items()):
        random.Random(f"{seed} {label}").shuffle(places)
        ordered += [(rank / counts[label], place) for rank, place in enumerate(places)]
    chosen = []
    for rank, place in sorted(ordered):
        left -= min(len(texts[place]), MAX_TEXT)
        if left < 0 and rank > 0:
            break
        chosen.append(place)
    return sorted(chosen)
