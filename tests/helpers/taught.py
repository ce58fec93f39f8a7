"""What the model of the fixture `taught` knows by heart."""

GOOD = "def add(a, b):\n    return a + b"
FUNCTIONS = [
    {"name": "add", "content": "add, please", "answer": GOOD},
    {"name": "sub", "content": "sub", "answer": "def other(a):\n    pass"},
    {"name": "mul", "content": "and now a product", "answer": "def mul(a:"},
]
RECORDS = [
    {
        "messages": [
            {"role": "user", "content": record["content"]},
            {"role": "assistant", "content": record["answer"]},
        ],
        "name": record["name"],
    }
    for record in FUNCTIONS
]
SUMS = {"2 + 2 =": " 4", "3 + 5 =": " 8", "7 - 4 =": " 2"}  # as text, the last one wrong
