"""Hugging Face folders: config.json, generation_config.json and the weights that transformers would load."""

from dataclasses import replace
from pathlib import Path

from hwgen.errors import HwgenError, listed, shown
from hwgen.float_model import FloatModel, LazyTensors
from hwgen.hf_config import NAMES, are_token_ids, has_vision, json_object, parse_config
from hwgen.model_config import ModelConfig, end_ids, file_names, size_problems, tensor_problems
from hwgen.safetensors_file import DTYPES, StoredTensor, same_values, stored_tensors
from hwgen.tokenizer import Tokenizer

OUTSIDE = {"embed": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight"}
INSIDE = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
    "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj",
}
LANGUAGE, VISION = "model.text_model.", ("model.vision_model.", "model.connector.")
"""Beginnings of names of weights in a model of VISION_TYPES: in place of `model.`, and of those that are left out."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONVERT = "convert it with {auto}.from_pretrained({folder!r}).save_pretrained(NEW_FOLDER) of the package transformers"
OTHER_WEIGHTS = {
    "pytorch_model*.bin": CONVERT, "*.gguf": "give that file as the model",
    "*.safetensors": "one model in parts needs its index",
    **dict.fromkeys(("*.pth", "*.pt", "*.h5", "*.msgpack"), "convert it to the layout of transformers")}
"""Files of weights that are not read -> what to do with them."""
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", ("adapter_model.safetensors", "adapter_model.bin")
TOKENIZERS = ("tokenizer.model", "vocab.json", "vocab.txt")
"""Files that tokenizers of transformers are made from where there is no tokenizer.json."""
GREEDY = {
    "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None, "force_words_ids": None,
    "suppress_tokens": None, "begin_suppress_tokens": None, "sequence_bias": None, "forced_bos_token_id": None,
    "forced_eos_token_id": None, "min_length": 0, "min_new_tokens": None, "exponential_decay_length_penalty": None,
    "guidance_scale": 1.0, "num_beams": 1,
}
"""Options of generation_config.json that change which token is taken without sampling -> what leaves it alone."""
VISION_NOTE = "the vision tower is left out: hwgen builds the language part"


def load_hf(folder: Path, *, weights: bool = True) -> FloatModel:
    """Reads a Hugging Face folder; see `hwgen.load.load`."""
    raw = _config_file(folder)
    vision = has_vision(raw)
    config, notes = _with_generation(parse_config(raw, str(folder)), folder)
    if vision:
        notes.append(VISION_NOTE)
    tokenizer = _tokenizer(folder)
    if not weights:
        return FloatModel(config, {}, tokenizer, str(folder), tuple(notes))
    notes += _notes_of_files(folder, raw)
    _check_adapter(folder)
    stored = _stored(folder, raw)
    if vision:
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith(VISION)}
    config, names, more = _names(config, stored, vision)
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in stored.items()}
    # A tied head may be stored all the same, and old files hold the rotary frequencies.
    if problems := tensor_problems(config, names, found, tuple(DTYPES), (OUTSIDE["head"], "rotary_emb.inv_freq")):
        raise HwgenError(f"Model {str(folder)!r} has unusable weights: {'; '.join(problems)}")
    tensors = LazyTensors({name: stored[file].read for name, file in names.items()}, repr(str(folder)))
    return FloatModel(config, tensors, tokenizer, str(folder), (*notes, *more))


# what stands beside the weights

def _config_file(folder: Path) -> dict:
    file = folder / "config.json"
    if file.is_file():
        return json_object(file)
    _check_adapter(folder)
    raise HwgenError(f"Model folder {str(folder)!r} must hold a config.json (or give a GGUF file)")


def _check_adapter(folder: Path):
    """HwgenError where there is only an adapter, or where transformers would lay one over the weights."""
    if not (folder / ADAPTER).is_file():
        return
    merge = (f"merge it with PeftModel.from_pretrained(MODEL, {str(folder)!r}).merge_and_unload() of the package peft "
             "and save_pretrained(NEW_FOLDER)")
    if _present(folder, ("config.json",)) and _present(folder, (WEIGHTS, INDEX)):
        raise HwgenError(f"Model folder {str(folder)!r} must hold no adapter ({ADAPTER}) beside the model: {merge}, "
                         f"or move {ADAPTER} away for the model without it")
    base = json_object(folder / ADAPTER).get("base_model_name_or_path")
    raise HwgenError(f"Model folder {str(folder)!r} must hold a model, not only an adapter of "
                     f"{'one' if base is None else shown(base)}: {merge}")


def _notes_of_files(folder: Path, raw: dict) -> list[str]:
    """What to know of files that are not read."""
    notes = []
    if not (folder / ADAPTER).is_file() and (idle := _present(folder, ADAPTER_WEIGHTS)):
        notes.append(f"left out, as in transformers: {listed(idle)} (an adapter without an {ADAPTER})")
    if raw.get("transformers_weights") is None and _present(folder, (WEIGHTS, INDEX)) == [WEIGHTS, INDEX]:
        notes.append(f"left out, as in transformers: {INDEX}, as there is a {WEIGHTS}")
    return notes


def _tokenizer(folder: Path) -> Tokenizer | None:
    """That of tokenizer.json; with only other files that tokenizers are made of, one that says so when it is used."""
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(folder / "tokenizer.json")
    sources = _present(folder, TOKENIZERS)

    def refuse():
        raise HwgenError(f"Tokenizer of {str(folder)!r} must be a tokenizer.json, not only {listed(sources)}: make it "
                         f"with AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}) of the "
                         "package transformers")

    return Tokenizer(refuse) if sources else None


def _present(folder: Path, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if (folder / name).is_file()]


def _with_generation(config: ModelConfig, folder: Path) -> tuple[ModelConfig, list[str]]:
    """`config` with the ends of text of generation_config.json, which replace its own as in transformers' generate."""
    file = folder / "generation_config.json"
    if not file.is_file():
        return config, []
    raw, notes = json_object(file), []
    given = raw.get("eos_token_id")
    if not are_token_ids(given) or any(token < 0 for token in end_ids(given)):
        raise HwgenError(f"eos_token_id of {str(file)!r} must be a token id or a list of them, not {shown(given)}")
    ends = tuple(token for token in end_ids(given) if token < config.vocab)
    if beyond := [shown(token) for token in end_ids(given) if token >= config.vocab]:
        notes.append(f"left out of {file.name}: ends of text that are no tokens of the model, {listed(beyond)}")
    if config.eos_ids and not ends:
        notes.append(f"no token ends a text: {file.name}, which counts before config.json, names none")
    if changed := [name for name, plain in GREEDY.items() if raw.get(name) not in (None, [], {}, plain)]:
        notes.append(f"left out of {file.name}: {listed(changed)} (the likeliest token is taken as it is)")
    config = replace(config, eos_ids=ends)
    if problems := size_problems(config, NAMES | {"eos": f"eos_token_id of {file.name}"}):
        raise HwgenError(f"Model {str(folder)!r} is not supported: {'; '.join(problems)}")
    return config, notes


# weights

def _names(config: ModelConfig, stored: dict[str, StoredTensor], vision: bool) -> tuple[ModelConfig, dict, list[str]]:
    """The config with its head tied or not, every weight's name in the files, and notes.

    Of a tied model the one of embedding and head that is stored counts; where both are and differ, it is not tied.
    """
    outside = OUTSIDE | ({"embed": OUTSIDE["embed"].replace("model.", LANGUAGE, 1)} if vision else {})
    embed, head, notes = stored.get(outside["embed"]), stored.get(outside["head"]), []
    if config.tied and embed and head and not same_values(embed, head):
        config = replace(config, tied=False)
        notes.append("tie_word_embeddings is true, but the stored head differs from the embedding: both are kept, as "
                     "in transformers (what reads config.json alone takes them for one)")
    names = file_names(config, OUTSIDE, "model.layers", INSIDE)
    if vision:
        names = {name: file.replace("model.", LANGUAGE, 1) for name, file in names.items()}
    if config.tied and head and not embed:
        names["embed"] = outside["head"]
    return config, names, notes


def _stored(folder: Path, raw: dict) -> dict[str, StoredTensor]:
    """All tensors of the files that transformers would load, by name; of one in two files it is the later file's."""
    stored = {}
    for file in _weight_files(folder, raw):
        stored |= stored_tensors(file)
    return stored


def _weight_files(folder: Path, raw: dict) -> list[Path]:
    named = raw.get("transformers_weights")
    if named is not None and not (_is_file_name(named) and named.endswith((".safetensors", ".safetensors.index.json"))):
        raise HwgenError(f"transformers_weights in config.json of {str(folder)!r} must be a file of the folder, "
                         f"*.safetensors or *.safetensors.index.json, not {shown(named)}")
    name = named or next((name for name in (WEIGHTS, INDEX) if (folder / name).is_file()), WEIGHTS)
    files = _shards(folder / name) if name.endswith(".json") and (folder / name).is_file() else [folder / name]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        instead = _instead(folder, raw) if missing == [WEIGHTS] else ""
        raise HwgenError(f"Model folder {str(folder)!r} must hold {listed(missing)}{instead}")
    return files


def _instead(folder: Path, raw: dict) -> str:
    """The end of the sentence that there are no weights, where there are others than are read."""
    auto = "AutoModelForImageTextToText" if has_vision(raw) else "AutoModelForCausalLM"
    for pattern, advice in OTHER_WEIGHTS.items():
        if files := sorted(file.name for file in folder.glob(pattern) if file.name not in ADAPTER_WEIGHTS):
            return f", not only {listed(files)}: {advice.format(auto=auto, folder=str(folder))}"
    return ""


def _is_file_name(text) -> bool:
    return isinstance(text, str) and text == Path(text).name != ""


def _shards(index: Path) -> list[Path]:
    shards = json_object(index).get("weight_map")
    if not isinstance(shards, dict) or not all(_is_file_name(shard) for shard in shards.values()):
        raise HwgenError(f"{index.name} of {str(index.parent)!r} must have a weight_map of names to files of the "
                         "folder")
    return [index.parent / shard for shard in sorted(set(shards.values()))]
