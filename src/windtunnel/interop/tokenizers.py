"""Tokenizers that come along with a checkpoint, and the files of ours that transformers can read."""

import json
import shutil
from pathlib import Path
from typing import Any

from windtunnel.checkpoint import read_json
from windtunnel.data.tokenizers import (
    ByteTokenizer,
    GivenSentencePiece,
    JsonTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
)
from windtunnel.data.tokenizers.given import JSON_FILE, PIECES_FILE, byte_level_alphabet
from windtunnel.data.tokenizers.trained import END_OF_TEXT, SPACE_MARK
from windtunnel.errors import InputError

_SETTINGS = "tokenizer_config.json"
_FILES = (JSON_FILE, PIECES_FILE, "vocab.json", "merges.txt")
# What a run keeps of the folder that it came from, to give it back as it was.
KEPT = (
    *_FILES,
    "config.json",
    "generation_config.json",
    _SETTINGS,
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def read_tokenizer(folder: Path, vocab: int) -> Tokenizer | None:
    """The tokenizer in a Hugging Face folder, or None where there is none.

    Raises `InputError` where it has more tokens than the model. Fewer are usual: tables are padded.
    """
    if not any((folder / name).is_file() for name in (JSON_FILE, PIECES_FILE, "vocab.json")):
        return None
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab > vocab:
        file = next(name for name in _FILES if (folder / name).is_file())
        raise InputError(
            f"{folder / file}: has {tokenizer.vocab} tokens, but vocab_size in config.json, the rows of the table of "
            f"tokens, is {vocab}"
        )
    return tokenizer.end_at(_ends(folder))


def _ends(folder: Path) -> set[int]:
    """Every id that the folder says a text ends at: some name several, such as the end of a turn."""
    found: set[int] = set()
    for name in ("config.json", "generation_config.json"):
        ends = read_json(folder / name).get("eos_token_id") if (folder / name).is_file() else None
        found.update(each for each in (ends if isinstance(ends, list) else [ends]) if isinstance(each, int))
    return found


def write_tokenizer(folder: Path, tokenizer: Tokenizer | None, originals: Path, context: int) -> bool:
    """Put a run's tokenizer where transformers looks for it; returns whether there is one that it can read.

    originals: what an imported run keeps, given back as it was.
    """
    for path in originals.iterdir() if originals.is_dir() else ():
        if path.name != "config.json":
            shutil.copyfile(path, folder / path.name)
    if any((originals / name).is_file() for name in _FILES):
        _lengthen(folder / _SETTINGS, originals / "config.json", context)
        return tokenizer is not None
    found = as_json(tokenizer) if tokenizer is not None else None
    if found is None:
        return False
    text, begin, end = found
    (folder / JSON_FILE).write_text(text, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
    }
    (folder / _SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
    return True


def _lengthen(path: Path, config: Path, context: int) -> None:
    """Let the given-back settings of a tokenizer allow the longer texts of a run that was extended after its import."""
    settings = read_json(path) if path.is_file() else {}
    imported = read_json(config) if config.is_file() else {}
    positions = [imported[name] for name in ("max_position_embeddings", "n_positions") if name in imported]
    if positions and context > positions[0] and settings.get("model_max_length", context) < context:
        path.write_text(json.dumps({**settings, "model_max_length": context}, indent=2, ensure_ascii=False) + "\n")


def as_json(tokenizer: Tokenizer) -> tuple[str, str, str] | None:
    """A `tokenizer.json` that gives the same ids, and how it spells beginning and end; None for what it cannot express.

    A literal U+2581 in a text is a space to it, as it is to every SentencePiece vocabulary there.
    """
    import tokenizers

    made: Any
    match tokenizer:
        case JsonTokenizer():
            made = tokenizers.Tokenizer.from_str(tokenizer.files()[JSON_FILE].decode("utf-8"))
        case ByteTokenizer():
            made = tokenizers.Tokenizer(tokenizers.models.BPE(byte_level_alphabet(), []))
            made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            made.decoder = tokenizers.decoders.ByteLevel()
        case SentencePieceTokenizer() | GivenSentencePiece():
            made = _of_pieces(tokenizer)
        case _:
            return None
    if made is None:
        return None
    end: str = made.id_to_token(tokenizer.end_of_text) or END_OF_TEXT
    begin: str = made.id_to_token(tokenizer.begin_of_text) or end
    made.add_special_tokens(list(dict.fromkeys((begin, end))))
    if tokenizer.begins is not None:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B", special_tokens=[(begin, tokenizer.begins)]
        )
    return made.to_str(), begin, end


def _of_pieces(tokenizer: SentencePieceTokenizer | GivenSentencePiece) -> Any:
    """SentencePiece's BPE, which merges the pair with the best piece first; None for its other algorithms."""
    import tokenizers

    processor = tokenizer.processor
    pieces = [processor.id_to_piece(index) for index in range(processor.vocab_size())]
    ranks = {
        piece: index
        for index, piece in enumerate(pieces)
        if not (processor.is_byte(index) or processor.is_control(index) or processor.is_unknown(index))
    }
    scores = [processor.get_score(index) for index in ranks.values()]
    if scores != [-float(rank) for rank in range(len(scores))]:
        return None
    merges = [
        (piece[:cut], piece[cut:])
        for piece in ranks
        for cut in range(1, len(piece))
        if piece[:cut] in ranks and piece[cut:] in ranks
    ]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    unknown = pieces[processor.unk_id()]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocabulary, merges, unk_token=unknown, byte_fallback=True, fuse_unk=True)
    )
    start = [tokenizers.normalizers.Prepend(SPACE_MARK)] if tokenizer.prefix else []
    made.normalizer = tokenizers.normalizers.Sequence([*start, tokenizers.normalizers.Replace(" ", SPACE_MARK)])
    parts = [
        tokenizers.decoders.Replace(SPACE_MARK, " "),
        tokenizers.decoders.ByteFallback(),
        tokenizers.decoders.Fuse(),
    ]
    if tokenizer.prefix:
        parts.append(tokenizers.decoders.Strip(" ", 1, 0))
    made.decoder = tokenizers.decoders.Sequence(parts)
    return made
