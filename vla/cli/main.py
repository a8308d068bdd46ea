"""The `vla` command: finds the verb, resolves its settings, makes its run folder and reports how it ended.

Exit status: 0 done, 1 an internal error or a run that reports a failure of its own, 2 bad input, 130 interrupted,
141 nobody reads the output any more (`vla describe | head`).
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import select
import sys
import time
import traceback
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import vla
from vla.cli.verbs import VERBS, Verb
from vla.errors import ConfigError, VlaError, unknown_name

logger = logging.getLogger(__name__)

NO_READER = 141  # 128 + SIGPIPE: what a shell reports of any tool whose output nobody reads


@dataclass(frozen=True, kw_only=True)
class Request:
    """The command line, taken apart."""

    verb: Verb
    name: str
    overrides: list[str]
    output_root: str | None = None
    run_directory: str | None = None
    show_help: bool = False
    show_config: bool = False
    debug: bool = False


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit status; arguments as in `vla VERB name=VALUE ...`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _answer(arguments)
        sys.stdout.flush()  # here, where its failure is known for what it is
        return status
    except BrokenPipeError as error:
        if not _has_no_reader():
            return _fail(error, "--debug" in arguments, status=1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush
        return NO_READER


def _answer(arguments: list[str]) -> int:
    debug = "--debug" in arguments
    try:
        if not arguments or arguments[0] in ("--help", "-h", "help"):
            return _print_overview()
        if arguments[0] == "--version":
            return _print_version()
        check_packages()
        return _run(parse(arguments))
    except VlaError as error:
        return _fail(error, debug, status=2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the last line of defence: one line for people, the rest in the log
        return _fail(error, debug, status=1)


def parse(arguments: list[str]) -> Request:
    """Returns the parts of a command line whose first word is a verb; raises ConfigError when it cannot be read."""
    name, *rest = arguments
    if name not in VERBS:
        raise ConfigError(unknown_name("verb", name, VERBS))
    verb, overrides, own = VERBS[name], [], dict[str, Any]()
    while rest:
        word = rest.pop(0)
        key, _, value = word.partition("=")
        if word in ("--help", "-h"):
            own["show_help"] = True
        elif word == "--debug":
            own["debug"] = True
        elif word == "--cfg=job" or (word == "--cfg" and rest and rest.pop(0) == "job"):
            own["show_config"] = True
        elif key in ("output_root", "run_directory") and value:
            own[key] = value
        elif word.startswith("--") and (flag := word[2:].replace("-", "_")) in verb.flags:
            overrides.append(f"{flag}=true")
        elif word.startswith("-"):
            options = (
                "--help",
                "--cfg job",
                "--debug",
                *(f"--{flag.replace('_', '-')}" for flag in verb.flags),
            )
            raise ConfigError(unknown_name("option", word, options))
        elif verb.positional and "=" not in word and not word.startswith("~"):
            overrides.append(f"{verb.positional}={word}")
        else:
            overrides.append(word)
    return Request(verb=verb, name=name, overrides=overrides, **own)


def _has_no_reader() -> bool:
    """Whether it is the standard output that is broken, and not some pipe of our own."""
    output = select.poll()
    try:
        output.register(sys.stdout, 0)
    except (OSError, ValueError):  # not a file
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in output.poll(0))


def check_packages() -> None:
    """Raises ConfigError when `envs` or `policies` would come from somebody else's package of the same name."""
    root = Path(vla.__file__).resolve().parents[1]
    for name in ("envs", "policies"):
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or ()) if spec else []
        found = Path(places[0]).resolve() if places else None
        if found != root / name:
            raise ConfigError(
                f"the package {name!r} would be imported from {found}, but ours is {root / name}; remove or rename the "
                f"other one, take its folder off PYTHONPATH, or run from a folder that has no {name!r}"
            )


def _run(request: Request) -> int:
    from vla.cli import config, convert

    module = importlib.import_module(request.verb.module)
    run: Callable[[Any, Path], dict[str, Any]] = module.run
    config_class = typing.get_type_hints(run)["cfg"]
    if request.show_help:
        return _print_verb_help(request, config_class)
    cfg = config.compose(request.verb.config_name, config_class, request.overrides)
    values = convert.to_plain(cfg)
    text = _yaml(values)
    if request.show_config:
        print(text, end="")
        return 0
    return _run_in_directory(request, run, cfg, text)


def _run_in_directory(
    request: Request, run: Callable[..., dict[str, Any]], cfg: Any, config_text: str
) -> int:
    import rich

    from vla.cli import run_directory

    rich.reconfigure(stderr=True)  # progress and log lines; what a run found out goes to stdout
    directory = _choose_directory(request, cfg)
    run_directory.write_text(directory / "config.yaml", config_text)
    started, clock = datetime.now(UTC), time.monotonic()
    summary: dict[str, Any] = {"status": "failed"}
    try:
        with run_directory.RunLog(directory):
            try:
                summary = {"status": "ok", **run(cfg, directory)}
                return int(summary.get("exit_code", 0))
            except BaseException as error:
                summary |= _describe(error)
                raise
    finally:
        facts = {"verb": request.name, "started_at": started.isoformat(timespec="seconds")}
        facts |= {
            "seconds": round(time.monotonic() - clock, 3),
            "version": version(),
            "overrides": request.overrides,
        }
        run_directory.write_json(directory / "summary.json", {**facts, **summary})
        print(f"{directory / 'summary.json'}", file=sys.stderr)


def _choose_directory(request: Request, cfg: Any) -> Path:
    from vla.cli import convert, run_directory

    parent = run_directory.output_root(request.output_root) / request.name
    if request.verb.positional:
        parent /= str(convert.to_plain(getattr(cfg, request.verb.positional)))
    previous = (
        run_directory.latest(parent)
        if request.verb.resumes and getattr(cfg, "resume", False)
        else None
    )
    if request.run_directory:
        return run_directory.adopt(Path(request.run_directory).expanduser().absolute())
    directory = previous or run_directory.create(parent)
    run_directory.point_latest(directory)
    return directory


def _describe(error: BaseException) -> dict[str, Any]:
    """Returns what summary.json says of an error, after writing its traceback to the log file."""
    if isinstance(error, KeyboardInterrupt):
        return {"status": "interrupted", "exit_code": 130}
    if isinstance(error, BrokenPipeError) and _has_no_reader():
        return {"status": "interrupted", "exit_code": NO_READER}
    logging.getLogger("traceback").info("%s", "".join(traceback.format_exception(error)))
    exit_code = 2 if isinstance(error, VlaError) else 1
    return {"error": str(error), "error_type": type(error).__name__, "exit_code": exit_code}


def _fail(error: Exception, debug: bool, status: int) -> int:
    if debug:
        traceback.print_exception(error)
    elif isinstance(error, VlaError):
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    else:
        line = " ".join(str(error).split())
        print(
            f"internal error: {type(error).__name__}: {line} (add --debug for the traceback)",
            file=sys.stderr,
        )
    return status


def version() -> str:
    """Returns the installed version, or "unknown" when the package is used without being installed."""
    from importlib import metadata

    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version("vla")
    return "unknown"


def _print_version() -> int:
    print(f"vla {version()} ({Path(vla.__file__).resolve().parent})")
    return 0


def _print_overview() -> int:
    from vla.cli.help import overview_text

    print(overview_text({name: (verb.summary, verb.examples[0]) for name, verb in VERBS.items()}))
    return 0


def _print_verb_help(request: Request, config_class: type) -> int:
    from vla.cli.config import compose_values
    from vla.cli.help import verb_text

    values = compose_values(request.verb.config_name, config_class, request.overrides)
    print(
        verb_text(
            request.name, request.verb.summary, list(request.verb.examples), config_class, values
        )
    )
    return 0


def _yaml(values: dict[str, Any]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(values))


if __name__ == "__main__":
    sys.exit(main())
