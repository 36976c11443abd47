"""Thesauri: the formats, what is refused, and WordNet against NLTK and against Princeton's own program."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxformer.data.text.thesaurus import DETACHMENT, load_thesaurus
from jaxformer.errors import UserError

DEBIAN = Path("/usr/share/wordnet")
NEEDS_WORDNET = pytest.mark.skipif(
    not (DEBIAN / "data.noun").is_file(), reason="needs WordNet's database: apt-get install wordnet-base"
)

# Lines of WordNet 3.0's own files, with the pointers left out; the format is wndb(5WN)'s.
WORDNET = {
    "data.noun": [
        "  1 This software and database is being provided to you, the LICENSEE, by  ",
        "06613686 10 n 0a movie 0 film 0 picture 0 moving_picture 0 moving-picture_show 0 motion_picture 0 "
        "motion-picture_show 0 picture_show 0 pic 0 flick 0 000 | a form of entertainment",
        "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 000 | a member of the genus Canis",
        "01855672 05 n 01 goose 0 000 | web-footed long-necked bird",
    ],
    "data.verb": [
        "01926311 38 v 01 run 0 000 02 + 01 00 + 02 00 | move fast",
        "02001858 38 v 03 chase 0 dog 0 tail 0 000 01 + 08 00 | go after",
    ],
    "data.adj": [
        "01382086 00 a 02 large 0 big(a) 0 000 | above average in size",
        "00439252 00 s 02 clear(p) 0 well-defined 2 000 | accurately stated",
    ],
    "data.adv": ["00085811 02 r 03 quickly 0 rapidly 0 speedily 0 000 | with rapid movements"],
    "noun.exc": ["geese goose"],
    "verb.exc": ["ran run"],
    "adj.exc": ["bigger big"],
    "adv.exc": ["best well"],
}

# Computed with NLTK 3.9 on WordNet 3.0: {lemma names of synsets(word)} - {word}.
NLTK = {
    "movies": "film,flick,motion picture,motion-picture show,movie,moving picture,moving-picture show,pic,picture,"
    "picture show",
    "geese": "bozo,cuckoo,fathead,goof,goofball,goose,jackass,twat,zany",
    "happiest": "felicitous,glad,happy,well-chosen",
    "quickly": "apace,chop-chop,cursorily,promptly,quick,rapidly,speedily",
    "was": "Evergreen State,WA,Washington,be,comprise,constitute,cost,embody,equal,exist,follow,live,make up,"
    "personify,represent",
    "women": "adult female,char,charwoman,cleaning lady,cleaning woman,fair sex,woman,womanhood",
}


def write(folder: Path, name: str, content: str) -> str:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return str(path)


@pytest.fixture
def wordnet(tmp_path) -> str:
    for name, lines in WORDNET.items():
        write(tmp_path, name, "\n".join(lines) + "\n")
    return str(tmp_path)


def test_a_text_file(tmp_path):
    path = write(
        tmp_path, "words.txt", "# mine\n\nBig: large,  very   large, BIG\nbig: huge\nice cream: gelato\n"
    )
    thesaurus = load_thesaurus(path)
    assert thesaurus.synonyms("big") == ("huge", "large", "very large")
    assert thesaurus.synonyms("BIG") == thesaurus.synonyms("big")
    assert thesaurus.synonyms("ice cream") == ("gelato",)
    assert thesaurus.synonyms("large") == ()  # synonyms go one way, as they are written


def test_json_lines_say_what_a_text_file_says(tmp_path):
    lines = [
        {"word": "Big", "pos": "adj", "synonyms": ["large", "very  large"]},
        {"word": "big", "synonyms": ["huge", "big"]},
        {"word": "lone", "synonyms": []},
    ]
    path = write(tmp_path, "words.jsonl", "\n".join(json.dumps(line) for line in lines))
    thesaurus = load_thesaurus(path)
    assert thesaurus.synonyms("big") == ("huge", "large", "very large")
    assert thesaurus.synonyms("lone") == ()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.txt",
            "big: large\nsmall little\n",
            r"a\.txt, line 2: 'small little' is not a word and its synonyms",
        ),
        ("a.txt", "\n: large\n", "line 2: ': large' is not"),
        ("a.txt", "big: large,, huge\n", "line 1: .*write it as in 'big: large, huge'"),
        ("a.txt", "# nothing\n", r"a\.txt: holds no words; write lines as in"),
        ("a.jsonl", '{"word": "a", "synonyms": []}\n{"word": "big"', r"a\.jsonl, line 2: not JSON \("),
        ("a.jsonl", '{"word": "big", "synonyms": "large"}', 'line 1: .*write it as in {"word"'),
        ("a.jsonl", '{"word": "big", "synonyms": [3]}', "line 1: is not a word and its synonyms"),
        ("a.jsonl", '{"synonyms": ["big"]}', "line 1: is not a word and its synonyms"),
        ("a.jsonl", '["big"]', "line 1: expected a JSON object"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        load_thesaurus(write(tmp_path, name, content))


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.txt: cannot be read \(No such file"):
        load_thesaurus(str(tmp_path / "nowhere.txt"))
    (tmp_path / "image.txt").write_bytes(b"big: \xff\xfe")
    with pytest.raises(UserError, match=r"image\.txt, line 1: byte 5 \(0xff\) is not UTF-8"):
        load_thesaurus(str(tmp_path / "image.txt"))
    with pytest.raises(UserError, match=r"a folder without data\.noun, .*adv\.exc, so not WordNet's"):
        load_thesaurus(str(tmp_path))


def test_wordnets_files(wordnet):
    thesaurus = load_thesaurus(wordnet)
    assert thesaurus.synonyms("dog") == ("Canis familiaris", "chase", "domestic dog", "tail")  # noun and verb
    assert thesaurus.synonyms("canis familiaris") == ("dog", "domestic dog")
    assert thesaurus.synonyms("big") == ("large",)  # the marker "(a)" is no part of the word
    assert thesaurus.synonyms("well-defined") == ("clear",)
    assert len(thesaurus.synonyms("movie")) == 9  # 0a is ten, in hexadecimal
    assert thesaurus.synonyms("2") == thesaurus.synonyms("entertainment") == ()


@pytest.mark.parametrize(
    ("word", "base"),
    [
        ("dogs", "dog"),
        ("geese", "goose"),
        ("ran", "run"),
        ("running", None),
        ("larger", "large"),
        ("BIGGER", "big"),
    ],
)
def test_inflected_words_have_the_synonyms_of_their_base_and_the_base(wordnet, word, base):
    thesaurus = load_thesaurus(wordnet)
    expected = {base, *thesaurus.synonyms(base)} if base else set()
    assert set(thesaurus.synonyms(word)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "06613686 10 n 02 movie 0 film",
        "06613686 10 n zz movie 0 000 | gloss",
        "06613686 10 x 01 movie 0 000 | gloss",
    ],
)
def test_a_broken_line_of_wordnets_is_named(wordnet, line):
    write(Path(wordnet), "data.noun", "\n".join([*WORDNET["data.noun"], line]))
    with pytest.raises(UserError, match=r"data\.noun, line 5: .* is not a synset of WordNet's"):
        load_thesaurus(wordnet)


@NEEDS_WORDNET
@pytest.mark.parametrize(("word", "expected"), NLTK.items())
def test_the_whole_of_wordnet_is_nltks(word, expected):
    assert load_thesaurus(str(DEBIAN)).synonyms(word) == tuple(expected.split(","))


@NEEDS_WORDNET
@pytest.mark.skipif(not shutil.which("wn"), reason="needs WordNet's program: apt-get install wordnet")
def test_the_whole_of_wordnet_is_what_its_own_program_says():
    thesaurus = load_thesaurus(str(DEBIAN))
    words = [
        "dog",
        "movie",
        "movies",
        "geese",
        "big",
        "happy",
        "quickly",
        "well",
        "ran",
        "churches",
        "wonderful",
    ]
    for word in [*words, "film", "bass", "box", "mice", "light"]:
        found: set[str] = set()
        for part in DETACHMENT:
            option = "-syns" + {"adj": "a", "adv": "r"}.get(part, part[0])
            out = subprocess.run(["wn", word, option], capture_output=True, text=True, check=False).stdout
            for line in re.findall(r"^Sense \d+\n(.+)$", out, re.MULTILINE):
                found |= {re.sub(r"\(.*?\)", "", name).strip() for name in line.split(", ")}
        assert set(thesaurus.synonyms(word)) == {name for name in found if name.lower() != word}, word
