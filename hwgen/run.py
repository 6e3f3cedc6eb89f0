"""`hwgen sim`: run prompts on the simulated chip, stream its text, keep the result with the build."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hwgen.build_folder import read_manifest
from hwgen.errors import HwgenError
from hwgen.report import keep_result
from hwgen.simulate import simulate
from hwgen.tokenizer import Tokenizer


def run(build: Path, *, sim: str, prompt_ids: Sequence[Callable[[Tokenizer | None], list[int]]], max_tokens: int,
        stream: Callable[[str], None] | None = None, on_stage=None, **disturbance) -> dict:
    """Simulate and return the result, with `text` where the chip's model has a tokenizer.

    `prompt_ids`, one for each stream, make the ids with the build's tokenizer; `stream` gets the prompt and every piece
    of text as it appears, of several prompts a line each at the end. The result, and the timeline of a token, are also
    kept in BUILD/sim-SIM.json and shown in BUILD/report.html. Raises NotKept where they cannot be.
    """
    build = Path(build)
    manifest = read_manifest(build)
    if not manifest["images"]:
        raise HwgenError(f"BUILD must have its ROM images, not {str(build)!r}, which was generated with --no-images")
    tokenizer = _tokenizer(build)
    prompts = [make(tokenizer) for make in prompt_ids]
    one = len(prompts) == 1
    ids = prompts[0] if one else prompts
    pieces = _Pieces(tokenizer, prompts[0], stream if one else None)

    def stage(name):
        if on_stage:
            on_stage(name)
        if name == "run":
            pieces.begin()

    result = simulate(build, sim=sim, prompt_ids=ids, max_tokens=max_tokens, eos=manifest["eos_ids"],
                      on_token=pieces.token if one else None, on_stage=stage, **disturbance)
    pieces.end()
    texts = [None if tokenizer is None else tokenizer.decode(tokens)
             for tokens in ([result["tokens"]] if one else result["tokens"])]
    if stream and not one:
        stream("\n".join(f"{number}: {_line(tokenizer, *both)}" for number, both in enumerate(
            zip(prompts, result["tokens"], strict=False))))
    result = {"sim": sim, "prompt_ids": ids, **result, "text": texts[0] if one or tokenizer is None else texts}
    answer = {name: value for name, value in result.items() if name != "timeline"}
    keep_result(build, f"sim-{sim}.json", result, answer)
    return answer


def _tokenizer(build: Path) -> Tokenizer | None:
    path = build / "tokenizer.json"
    return Tokenizer.from_json(path.read_text(encoding="utf-8")) if path.exists() else None


def _line(tokenizer, prompt, tokens) -> str:
    """A prompt and what follows, or the ids where there is no tokenizer."""
    if tokenizer is not None:
        return tokenizer.decode(prompt + tokens)
    return " ".join(map(str, prompt)) + " | " + " ".join(map(str, tokens))


class _Pieces:
    """Text as tokens come, or the ids where there is no tokenizer."""

    def __init__(self, tokenizer, ids, stream):
        self.show = stream or (lambda piece: None)
        self.text = None if tokenizer is None else tokenizer.stream(ids)
        self.prompt = " ".join(map(str, ids)) + " |" if tokenizer is None else tokenizer.decode(ids)

    def begin(self):
        self.show(self.prompt)

    def token(self, token: int):
        self.show(f" {token}" if self.text is None else self.text.push(token))

    def end(self):
        if self.text is not None:
            self.show(self.text.flush())
