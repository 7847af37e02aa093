"""`python -m ml init --classes "forklift, pallet"`: a profile and a vocabulary for one's own words.

Writes `profiles/<name>.yaml`, which builds upon another profile, and `profiles/words/<name>.yaml`,
the vocabulary; with --texts also a copy of the prompts. With --labels your own pictures with masks
teach those of the words that no detector knows, and more of the others (docs/own-labels.md).
Nothing is downloaded here, and of a model that is on this machine only the tokenizer is loaded:
texts that it would cut are refused.
"""

from ml.arguments import add_profile, add_root, make_parser


def main(arguments: list[str]) -> int:
    parser = make_parser("python -m ml init", __doc__)
    parser.add_argument("--classes", type=str, help='your words: "forklift, pallet, hard hat"')
    add_profile(parser, "sd15")  # to build upon
    parser.add_argument("--name", help="of the new profile; by default made of the words")
    parser.add_argument("--texts", help="your own prompts, a text file with one a line")
    parser.add_argument("--labels", help="folder of your own pictures with masks, to learn from")
    add_root(parser, "the checkout")
    chosen = parser.parse_args(arguments)
    if chosen.classes is None and chosen.labels is None:
        raise ValueError("expected --classes, --labels, or both: nothing names a word")
    from ml.cli.own_words.profile import make_profile  # here: --help needs none of it

    files, vocabulary, notes = make_profile(
        chosen.classes, chosen.profile, chosen.name, chosen.texts, chosen.root, chosen.labels
    )
    print(f"seen ({len(vocabulary.seen)}): {', '.join(vocabulary.seen)}")
    print(f"unseen ({len(vocabulary.unseen)}): {', '.join(vocabulary.unseen) or 'none'}")
    if vocabulary.labelled:
        print(f"labelled ({len(vocabulary.labelled)}): {', '.join(vocabulary.labelled)}")
    for note in notes:
        print(f"note: {note}")
    for path in files:
        print(f"written: {path}")
    print(f"next: python -m ml plan --profile {vocabulary.name}")
    return 0
