"""Documents become passages that can be cited: by structure, whole where they fit, nothing lost."""

from __future__ import annotations

import random
import re
from itertools import pairwise

import pytest
from document_files import docx_of, page_of, paragraph, passages, pdf_of

from ring0 import limits
from ring0.memory.documents import Block, DocumentUnreadable, check, parser_of, passages_of

HANDBOOK = """# Handbook

Welcome.

## Refunds

We refund within 30 days.

### Limits

| what | limit |
| --- | --- |
| card | 500 |
| cash | 50 |

- ask Ann
  - or Bob
- then wait

## Shipping

```
make ship
```
"""


def test_a_passage_has_its_headings_in_front_and_is_cited_by_them_and_its_lines() -> None:
    found = passages("markdown", HANDBOOK)
    assert [one.place for one in found] == [
        "Handbook, line 3",
        "Handbook > Refunds, line 7",
        "Handbook > Refunds > Limits, lines 11-18",
        "Handbook > Shipping, lines 22-24",
    ]
    assert found[1].text == "Handbook > Refunds\n\nWe refund within 30 days."


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("markdown", HANDBOOK * 5),
        ("markdown", "Intro.\n\n" + "".join(f"- entry {n} of the list\n" for n in range(300))),
        ("plain", "Intro.\n\n" + "\n".join(f"Sentence {n} is a line." for n in range(300))),
        ("plain", "\n\n".join(f"Line {n} of it.\nAnd more of {n}." for n in range(200))),
        ("code", "".join(f"func f{n}() {{\n  return {n}\n}}\n\n" for n in range(200))),
        ("python", "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(50))),
        ("rows", "name,city\n" + "".join(f"name{n},city{n}\n" for n in range(200))),
    ],
)
def test_a_citation_leads_to_the_lines_that_hold_the_passage(parser: str, text: str) -> None:
    lines = text.split("\n")
    for one in passages(parser, text):
        found = re.search(r"lines? (\d+)(?:-(\d+))?$", one.place)
        assert found, one.place
        cited = "\n".join(lines[int(found[1]) - 1 : int(found[2] or found[1])])
        words = set(re.findall(r"\w+", one.text.split("\n\n", 1)[-1]))
        if parser == "rows":
            words -= {"name", "city"}
        assert words <= set(re.findall(r"\w+", cited)), one
        if parser != "rows":
            ends = (cited.split("\n")[0].strip(), cited.split("\n")[-1].strip())
            assert all(end in one.text for end in ends), one


def test_what_fits_into_a_passage_is_never_cut() -> None:
    table = "| a | b |\n| --- | --- |\n" + "\n".join(f"| row {n} | x |" for n in range(60))
    listed = "\n".join(f"- entry {n} of it" for n in range(60))
    code = "```\n" + "\n".join(f"step({n})" for n in range(100)) + "\n```"
    found = passages("markdown", f"# T\n\nBefore.\n\n{table}\n\n{listed}\n\n{code}\n\nAfter.\n")
    for whole in (table, listed, code):
        assert len(whole.encode()) < limits.PASSAGE_SIZE_BYTES_MAX
        assert sum(whole in one.text for one in found) == 1


def test_each_part_of_a_long_table_has_the_names_of_its_columns_above_it() -> None:
    names = "| customer | limit |\n| --- | --- |\n"
    found = passages("markdown", names + "".join(f"| n{n} | {n * 7} |\n" for n in range(500)))
    assert len(found) > 3
    assert all(one.text.startswith(names) for one in found)


def test_only_a_paragraph_that_had_to_be_cut_overlaps_with_its_next_part() -> None:
    sentences = [f"Sentence {n} tells of order {n}." for n in range(100)]
    cut = passages("plain", " ".join(sentences))
    assert len(cut) > 2
    for before, after in pairwise(cut):
        said = [one for one in sentences if one in before.text and one in after.text]
        assert said and before.text.endswith(said[-1]) and after.text.startswith(said[0])
    whole = passages("plain", "\n\n".join(sentences))
    assert all(sum(one in passage.text for passage in whole) == 1 for one in sentences)


def test_no_word_of_a_document_is_lost_and_no_passage_is_too_large() -> None:
    dice = random.Random(9)
    for _ in range(200):
        blocks = [_block(dice, number) for number in range(dice.randint(1, 25))]
        found = passages_of("a file", blocks)
        said = " ".join(one.text for one in found)
        for one in blocks:
            assert set(re.findall(r"\w+|🙂", one.text)) <= set(re.findall(r"\w+|🙂", said))
        for one in found:
            headings = len(one.place.encode()) + 4
            assert len(one.text.encode()) <= limits.PASSAGE_SIZE_BYTES_MAX + headings
            assert len(one.text) <= limits.RECORD_CHARS_MAX
            assert len(one.place) <= limits.RECORD_FIELD_CHARS_MAX


def _block(dice: random.Random, number: int) -> Block:
    kind = dice.choice(("heading", "paragraph", "list", "table", "code", "row"))
    if kind == "heading":
        return Block(kind="heading", text=f"Heading{number}", level=dice.randint(1, 8))
    # A line that is longer than a passage and has no blank can only be cut in a word.
    glue = dice.choice((" ", "\n", ". ", "\n\n", "。" if kind == "paragraph" else " "))
    letters = dice.choice(("word", "слово", "語", "🙂"))
    count = dice.choice((1, 5, 80, 600))
    text = glue.join(f"{letters}{number}x{n}" for n in range(count))
    return Block(kind=kind, text=text, first=number, last=number + count)


def test_an_edit_changes_the_passages_that_it_touches_and_no_others() -> None:
    rows = [f"customer{n},{n * 37 % 1009},city{n % 40}\n" for n in range(2_000)]
    before = passages("rows", "name,orders,city\n" + "".join(rows))
    rows.insert(3, "somebody,1,nowhere\n")
    after = passages("rows", "name,orders,city\n" + "".join(rows))
    assert len(before) > 50
    assert len({one.digest for one in after} - {one.digest for one in before}) <= 3
    edited = HANDBOOK.replace("30 days", "14 days")
    changed = {one.text for one in passages("markdown", edited)}
    kept = changed & {one.text for one in passages("markdown", HANDBOOK)}
    assert len(changed) - len(kept) == 1


def test_what_a_web_page_hides_is_not_read() -> None:
    html = """<head><title>t</title><style>p {}</style></head><h1>Prices</h1>
        <script>ALERT</script><p>A mug costs <b>5</b>&nbsp;EUR<br>today.</p>
        <div hidden>HIDDEN1</div><p style="color:red; display : none">HIDDEN2</p>
        <span style="font-size:0">HIDDEN3</span><i aria-hidden="true">HIDDEN4</i>
        <!-- HIDDEN5 --><template>HIDDEN6</template><p style="opacity:0.5">faint</p>
        <ul><li>one<ul><li>inner</ul><li><p>two</p></ul>
        <table><tr><th>A<th>B<tr><td>1<td>2</table><pre>  x\n    y</pre>"""
    [one] = passages("html", html)
    assert "HIDDEN" not in one.text and "ALERT" not in one.text
    assert one.text == (
        "Prices\n\nA mug costs 5 EUR\ntoday.\n\nfaint\n\n- one\n  - inner\n- two"
        "\n\nA | B\n1 | 2\n\n  x\n    y"
    )


def test_a_python_file_is_parted_by_what_it_defines() -> None:
    source = (
        '"""Top."""\nimport os\n\n\nclass A:\n    """Of A."""\n\n    @property\n    def b(self):\n'
        "        return 1\n\n\n# why\nasync def c():\n    pass\n\n\nX = 1\n"
    )
    assert [one.place for one in passages("python", source)] == [
        "lines 1-2",
        "class A, lines 5-6",
        "class A > def b, lines 8-10",
        "def c, lines 13-15",
        "line 18",
    ]
    assert passages("python", "def broken(:\n  x")[0].place == "lines 1-2"


def test_restructured_text_has_its_headings_by_their_lines() -> None:
    table = "=== ===\na   b\n=== ===\n1   2\n=== ===\n"
    text = f"=====\nTitle\n=====\n\nOne.\n\nSub\n---\n\nTwo.\n\n{table}"
    assert [one.place for one in passages("rst", text)] == [
        "Title, line 5",
        "Title > Sub, lines 10-16",
    ]


def test_a_pdf_is_cited_by_its_pages() -> None:
    pages = [
        page_of(*(f"Page {n} line {line} of it all." for line in range(40))) for n in (1, 2, 3)
    ]
    found = passages("pdf", pdf_of(*pages))
    assert [one.place for one in found] == ["p. 1", "p. 2", "p. 3"]
    assert all(f"Page {n} line 39" in one.text for n, one in enumerate(found, 1))
    [short] = passages("pdf", pdf_of(page_of("Refunds"), page_of("are paid")))
    assert short.place == "pp. 1-2"


def test_a_pdf_of_images_alone_says_that_it_wants_ocr() -> None:
    with pytest.raises(Exception, match="OCR"):
        passages("pdf", pdf_of(b"q Q", b"q Q"))


def test_words_document_has_headings_and_tables() -> None:
    cell = "<w:tc><w:p><w:r><w:t>{}</w:t></w:r></w:p></w:tc>"
    table = f"<w:tbl><w:tr>{cell.format('A')}{cell.format('B')}</w:tr></w:tbl>"
    body = paragraph("Refunds", "Heading1") + paragraph("In 30 days.") + table
    [one] = passages("office", docx_of(body + paragraph("End.")))
    assert one.text == "Refunds\n\nIn 30 days.\n\nA | B\n\nEnd."


def test_rows_of_json_say_their_names() -> None:
    [one] = passages("rows", '{"name": "Ann", "none": null, "tags": ["a"]}\n\n{"name": "Bob"}\n')
    assert one.text == 'name: Ann; tags: ["a"]\nname: Bob'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_text_is_read_in_whatever_encoding_it_is(encoding: str) -> None:
    [one] = passages("plain", "Größe: 5 €\r\nnext".encode(encoding))
    assert one.text == "Größe: 5 €\nnext"


def test_a_document_without_text_is_refused() -> None:
    for empty in ("", " \n\t\n", "\n" * 1000):
        with pytest.raises(DocumentUnreadable, match="not ingested"):
            passages("plain", empty)


def test_a_heading_beneath_which_nothing_stands_is_found_all_the_same() -> None:
    found = passages("markdown", "# A\n\n## B\n\n## C\n\ntext\n\n# D\n")
    assert [one.text for one in found] == ["A > B", "A > C\n\ntext", "D"]


def test_the_end_of_its_name_says_what_reads_a_file() -> None:
    assert parser_of("a/B.MD") == "markdown" and parser_of("Dockerfile") == "code"
    assert check("x.pdf") == "pdf" and parser_of("photo.png") == "" == parser_of(".md")
    with pytest.raises(DocumentUnreadable, match="not ingested"):
        check("photo.png")
