"""The model card of an export: what the model is, how it came about, what it scored."""

from typing import TYPE_CHECKING, Any

from windtunnel.runs import Stored
from windtunnel.version import VERSION

if TYPE_CHECKING:
    from windtunnel.interop.exporting import Export

_LOAD = """```python
{first}from transformers import {classes}

model = AutoModelForCausalLM.from_pretrained("{folder}")
{tokenizer}```
"""


def model_card(stored: Stored, export: "Export") -> str:
    """README.md with the metadata that the hub reads."""
    native = export.family.name != "windtunnel"
    head = ["---", "library_name: transformers", "pipeline_tag: text-generation", "tags:", "- windtunnel", "---"]
    title = [f"# {export.folder.name}", ""]
    first = "" if native else "import windtunnel.interop.auto  # pip install 'windtunnel[hf]'\n"
    tokenizer = f'tokenizer = AutoTokenizer.from_pretrained("{export.folder.name}")\n' if export.tokenizer else ""
    classes = "AutoModelForCausalLM, AutoTokenizer" if export.tokenizer else "AutoModelForCausalLM"
    use = _LOAD.format(first=first, classes=classes, folder=export.folder.name, tokenizer=tokenizer)
    return "\n".join([*head, "", *title, _sentence(stored, export), "", use, *_table(_facts(stored, export))]) + "\n"


def _sentence(stored: Stored, export: "Export") -> str:
    kinds = dict.fromkeys(block.mixer.kind for block in stored.spec.blocks)  # type: ignore[attr-defined]
    made = f"A language model of {len(stored.spec.layers)} layers ({', '.join(kinds)}), written by Windtunnel {VERSION}"
    if export.family.name != "windtunnel":
        return f"{made} as `{export.family.architecture}`."
    return f"{made}. No class of transformers computes it: it loads there with Windtunnel installed."


def _facts(stored: Stored, export: "Export") -> dict[str, Any]:
    spec, record = stored.spec, stored.record
    facts: dict[str, Any] = {
        "parameters": f"{export.parameters:,}",
        "weights": str(export.dtype).removeprefix("torch."),
        "width": spec.width,
        "context": spec.context,
        "vocabulary": spec.vocab,
        "spec": f"`{spec.fingerprint()}`",
        "checkpoint": stored.checkpoint.name,
    }
    imported, data, settings = stored.imported, record.get("data"), record["identity"].get("settings")
    if imported is not None:
        facts["imported from"] = imported["from"]
    if "began_with" in record:
        facts["began with"] = record["began_with"]["run"]
    if data is not None:
        facts["data"] = f"{data['source']}; {data['train_tokens']:,} training tokens ({data['tokenizer']})"
    if settings is not None:
        names = ("tokens", "context", "batch_size", "learning_rate", "schedule", "seed")
        facts["training"] = ", ".join(f"{name} {settings[name]}" for name in names if name in settings)
    for horizon, found in (record["result"] or {}).get("horizons", {}).items():
        bits = found.get("bits_per_byte")
        ending = "" if bits is None else f", {bits:.4f} bits per byte"
        facts[f"held-out loss at {horizon} of the budget"] = f"{found['loss']:.4f} nats a token{ending}"
    return facts


def _table(facts: dict[str, Any]) -> list[str]:
    return [
        "| | |",
        "| --- | --- |",
        *(f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in facts.items()),
    ]
