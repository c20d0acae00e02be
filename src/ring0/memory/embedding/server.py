"""Inside the sandbox: `server.py KIND WEIGHTS SHA256 TOKENS SHA256 TOKENS_MAX`. Lines
{"texts": […]} come in; out go as many {"vector": base64 of 32-bit floats}, or one {"error": …}.

Started by its path, so that nothing else of ring0 is read. It checks the very bytes that it uses.
"""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
import os
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

THREADS_MAX = 4

Embed = Callable[[list[str]], Any]
"""From texts to a matrix, one row each."""


def main(arguments: list[str]) -> int:
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # A library prints as it likes.
    kind, weights, weights_sha256, tokens, tokens_sha256, tokens_max = arguments
    try:
        make = {"minilm": _minilm, "static": _static}[kind]
        embed = make(_read(weights, weights_sha256), _read(tokens, tokens_sha256), int(tokens_max))
    except Exception as error:
        _say(out, {"error": f"{type(error).__name__}: {error}"[:2_000]})
        return 1
    for line in sys.stdin.buffer:
        _answer(embed, json.loads(line)["texts"], out)
    return 0


def _answer(embed: Embed, texts: list[str], out: BinaryIO) -> None:
    try:
        rows = embed(texts)
        said = [{"vector": base64.b64encode(row.tobytes()).decode()} for row in rows]
    except Exception as error:
        _say(out, {"error": f"{type(error).__name__}: {error}"[:2_000]})
        return
    out.write(b"".join(json.dumps(one).encode() + b"\n" for one in said))


def _say(out: BinaryIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value).encode() + b"\n")


def _read(path: str, sha256: str) -> bytes:
    with open(path, "rb") as file:
        found = file.read()
    if hashlib.sha256(found).hexdigest() != sha256:
        raise ValueError(f"{os.path.basename(path)} is not the file that ring0 knows")
    return found


def _minilm(weights: bytes, tokens: bytes, tokens_max: int) -> Embed:
    """all-MiniLM-L6-v2: the mean over a text's tokens."""
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads wait for each other at work: where others use a core too, more of them are slower.
    cores = len(os.sched_getaffinity(0))
    options.intra_op_num_threads = max(1, min(THREADS_MAX, cores // 2))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    tokenizer = wordpiece(lzma.decompress(tokens).decode(), tokens_max)

    def embed(texts: list[str]) -> Any:
        read = tokenizer.encode_batch(texts)
        ids = numpy.array([one.ids for one in read], numpy.int64)
        mask = numpy.array([one.attention_mask for one in read], numpy.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": ids * 0}
        (hidden,) = session.run(None, given)
        weight = mask[:, :, None].astype(numpy.float32)
        return ((hidden * weight).sum(axis=1) / weight.sum(axis=1)).astype("<f4")

    return embed


def wordpiece(vocabulary: str, tokens_max: int) -> Any:
    """BERT's tokenizer. What a text writes like one of its marks ("[SEP]") is text."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece

    pieces = {piece: place for place, piece in enumerate(vocabulary.removesuffix("\n").split("\n"))}
    tokenizer = Tokenizer(WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=100))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [(mark, pieces[mark]) for mark in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, marks)
    tokenizer.enable_truncation(tokens_max)
    tokenizer.enable_padding()  # With 0, [PAD]; what stands there is not looked at.
    return tokenizer


def _static(weights: bytes, tokens: bytes, tokens_max: int) -> Embed:
    """A vector a token, from a table; their mean. The file is safetensors: a head in JSON, then the
    numbers."""
    import numpy
    from tokenizers import Tokenizer

    head_bytes = int.from_bytes(weights[:8], "little")
    about = json.loads(weights[8 : 8 + head_bytes])["embedding.weight"]
    assert about["dtype"] == "F16"
    table = numpy.frombuffer(weights, "<f2", offset=8 + head_bytes).reshape(about["shape"])
    tokenizer = Tokenizer.from_str(tokens.decode())
    tokenizer.enable_truncation(tokens_max)

    def embed(texts: list[str]) -> Any:
        read = tokenizer.encode_batch(texts, add_special_tokens=False)
        rows = numpy.zeros((len(texts), table.shape[1]), "<f4")
        for row, one in zip(rows, read, strict=True):
            if one.ids:
                row[:] = table[one.ids].astype(numpy.float32).mean(axis=0)
        return rows

    return embed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
