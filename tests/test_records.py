"""Every record survives msgpack, JSON and Parquet; digests depend on the content alone."""

import collections
import hashlib
import io
import itertools
import os
import subprocess
import sys
import types
import typing

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import schemas
from schemas import Empanelled, Estimate, Message, Node, Provenance, Record, Template, Tree, digest, uniform
from schemas.arrow import CONFIGS, arrow_schema, from_row, to_row

RECORDS = sorted(
    (
        item
        for item in vars(schemas).values()
        if isinstance(item, type) and issubclass(item, Record) and item is not Record
    ),
    key=lambda record: record.__name__,
)
_INT64 = st.integers(-(2**63), 2**63 - 1)
_PLAIN = {
    str: ("ein Schritt: 2³ = 8\n\n", st.text(max_size=5)),
    int: (-(2**53) - 1, _INT64),
    float: (0.1, st.floats(allow_nan=False, allow_infinity=False)),
    bool: (True, st.booleans()),
    bytes: (b"\x00\xff", st.binary(max_size=3)),
}


def parts(hint):
    """(kind, arguments) of a type hint, unions without None; a None beside them is told by `optional`."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return "union", [arm for arm in typing.get_args(hint) if arm is not type(None)]
    if origin is typing.Literal:
        return "literal", typing.get_args(hint)
    if origin is tuple:
        item, ellipsis = typing.get_args(hint)
        assert ellipsis is Ellipsis, hint
        return "tuple", [item]
    return ("record", [hint]) if issubclass(hint, Record) else ("plain", [hint])


def optional(hint):
    return type(None) in typing.get_args(hint)


def full(hint):
    """A value with everything in it: no None, two items in each tuple."""
    kind, arms = parts(hint)
    if kind == "union":
        return full(arms[0])
    if kind == "literal":
        return arms[-1]
    if kind == "tuple":
        return (full(arms[0]), full(arms[0]))
    if kind == "record":
        return hint(**{name: full(field) for name, field in typing.get_type_hints(hint).items()})
    return _PLAIN[hint][0]


def bare(hint):
    """A value with as little in it as its type allows: None, empty tuples, empty texts."""
    kind, arms = parts(hint)
    if optional(hint):
        return None
    if kind == "union":
        return bare(arms[-1])
    if kind == "literal":
        return arms[0]
    if kind == "tuple":
        return ()
    if kind == "record":
        return hint(**{name: bare(field) for name, field in typing.get_type_hints(hint).items()})
    return hint()


def anything(hint):
    """A hypothesis strategy for values of a type."""
    kind, arms = parts(hint)
    nothing = [st.none()] if optional(hint) else []
    if kind == "union":
        return st.one_of(*nothing, *map(anything, arms))
    if kind == "literal":
        return st.sampled_from(arms)
    if kind == "tuple":
        return st.lists(anything(arms[0]), max_size=2).map(tuple)
    if kind == "record":
        return st.builds(hint, **{name: anything(field) for name, field in typing.get_type_hints(hint).items()})
    return _PLAIN[hint][1]


def through_parquet(records, record):
    table = pa.Table.from_pylist([to_row(item) for item in records], schema=arrow_schema(record))
    file = io.BytesIO()
    pq.write_table(table, file)
    return pq.read_table(io.BytesIO(file.getvalue()))


quick = settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
every_record = pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
every_table = pytest.mark.parametrize("record", CONFIGS.values(), ids=CONFIGS)


def test_the_tests_here_see_every_record_of_the_package():
    subclasses, pending = set(), [Record]
    while pending:
        found = [sub for sub in pending.pop().__subclasses__() if sub.__module__.startswith("schemas.")]
        subclasses.update(found)
        pending.extend(found)
    assert subclasses == set(RECORDS)
    assert set(CONFIGS.values()) <= subclasses


@every_record
def test_a_record_comes_back_from_msgpack_and_json(record):
    for value in (full(record), bare(record)):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=record) == value
        assert msgspec.json.decode(msgspec.json.encode(value), type=record) == value


@every_record
@quick
@given(data=st.data())
def test_any_value_of_a_record_comes_back_from_msgpack_and_json(record, data):
    value = data.draw(anything(record))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=record) == value
    assert msgspec.json.decode(msgspec.json.encode(value), type=record) == value


@every_table
def test_a_record_comes_back_from_parquet(record):
    for values in ([full(record), bare(record)], [bare(record)], [full(record)], []):
        table = through_parquet(values, record)
        assert [from_row(row, record) for row in table.to_pylist()] == values
        assert table.schema.equals(arrow_schema(record))


@every_table
@quick
@given(data=st.data())
def test_any_value_of_a_record_comes_back_from_parquet(record, data):
    values = data.draw(st.lists(anything(record), max_size=2))
    assert [from_row(row, record) for row in through_parquet(values, record).to_pylist()] == values


@every_table
def test_a_table_has_one_column_a_field_in_the_records_order(record):
    assert arrow_schema(record).names == list(record.__struct_fields__)


def test_columns_have_the_types_of_the_fields():
    tree = arrow_schema(Tree)
    assert tree.field("calls").type == pa.int64()
    problem = tree.field("problem").type
    assert problem.field("images").type == pa.list_(pa.struct([("bytes", pa.binary()), ("media_type", pa.string())]))
    node = tree.field("nodes").type.value_type
    assert node.field("kind").type == pa.string()
    assert node.field("prior").type == pa.float64()
    assert arrow_schema(schemas.Verified).field("verdict_agrees").type == pa.bool_()


def test_a_record_with_a_dict_has_no_schema():
    class Loose(Record):
        metadata: dict[str, str]

    with pytest.raises(KeyError):
        arrow_schema(Loose)


@every_record
def test_a_record_is_frozen(record):
    value = full(record)
    for name in record.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(value, name, None)
    with pytest.raises(AttributeError):
        value.something_new = 1
    assert value == full(record)


@every_record
def test_a_record_is_a_key(record):
    value, equal, other = full(record), full(record), bare(record)
    assert value is not equal
    assert hash(value) == hash(equal)
    assert {value: 1, other: 2}[equal] == 1


@every_record
def test_a_record_takes_its_fields_by_name_only(record):
    value = full(record)
    with pytest.raises(TypeError, match="positional"):
        record(*(getattr(value, name) for name in record.__struct_fields__))


@every_record
def test_unknown_fields_are_refused(record):
    plain = msgspec.to_builtins(full(record), builtin_types=(bytes,)) | {"nonsense": 1}
    with pytest.raises(msgspec.ValidationError, match="unknown field `nonsense`"):
        msgspec.msgpack.decode(msgspec.msgpack.encode(plain), type=record)
    with pytest.raises(msgspec.ValidationError, match="unknown field `nonsense`"):
        msgspec.json.decode(msgspec.json.encode(plain), type=record)


@every_table
def test_a_row_with_an_unknown_or_a_missing_column_is_refused(record):
    row = to_row(full(record))
    with pytest.raises(msgspec.ValidationError, match="unknown field `nonsense`"):
        from_row(row | {"nonsense": 1}, record)
    first = next(iter(row))
    with pytest.raises(msgspec.ValidationError, match=f"missing required field `{first}`"):
        from_row({name: value for name, value in row.items() if name != first}, record)


def test_a_digest_is_the_first_half_of_the_sha256_of_canonical_json():
    assert digest("pair", 1, None) == hashlib.sha256(b'["pair",1,null]').hexdigest()[:32]
    expected = hashlib.sha256(b'[{"correct":1,"scored":2,"unscored":0}]').hexdigest()[:32]
    assert digest(Estimate(correct=1, scored=2)) == expected


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"b": 1, "a": {"d": 2, "c": 3}}) == digest({"a": {"c": 3, "d": 2}, "b": 1})


def test_digest_and_uniform_are_the_same_in_every_process():
    program = (
        "from schemas import Message, digest, uniform\n"
        "parts = Message(role='user', content='é'), {'b', 'a', 'c'}, {'y': 1, 'x': 2}\n"
        "print(digest(*parts), uniform(*parts))"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "77")
    }
    here = Message(role="user", content="é"), {"c", "a", "b"}, {"x": 2, "y": 1}
    assert printed == {f"{digest(*here)} {uniform(*here)}\n"}


def test_different_values_have_different_digests():
    different = [
        (),
        ("",),
        (None,),
        ("", ""),
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        (1,),
        ("1",),
        (1.5,),
        (True,),
        ((1,), 2),
        ((1, 2),),
        (1, (2,)),
        (Estimate(),),
        (Estimate(correct=1, scored=1),),
        (Estimate(scored=1, unscored=1),),
        (Message(role="user", content="x"),),
        (Message(role="system", content="x"),),
    ]
    digests = {digest(*parts) for parts in different}
    assert len(digests) == len(different)
    assert all(len(value) == 32 and set(value) <= set("0123456789abcdef") for value in digests)


@every_record
def test_a_digest_tells_every_field(record):
    one, other = full(record), bare(record)
    for name in record.__struct_fields__:
        if getattr(one, name) != getattr(other, name):
            assert digest(msgspec.structs.replace(one, **{name: getattr(other, name)})) != digest(one), name


def test_uniform_numbers_fill_the_unit_interval_evenly():
    numbers = [uniform("split", i) for i in range(20_000)]
    assert all(0 <= number < 1 for number in numbers)
    tenths = collections.Counter(int(number * 10) for number in numbers)
    chi_square = sum((tenths[i] - 2_000) ** 2 / 2_000 for i in range(10))
    assert chi_square < 27.9, "9 degrees of freedom exceed this once in a thousand times"
    steps = [a < b for a, b in itertools.pairwise(numbers)]
    assert 0.48 < sum(steps) / len(steps) < 0.52, "neighbours are independent"


@given(st.text(), st.integers())
def test_uniform_is_a_function_of_its_parts_within_the_unit_interval(text, number):
    assert 0 <= uniform(text, number) < 1
    assert uniform(text, number) == uniform(text, number)
    assert uniform(text, number) != uniform(text, number + 1)


def test_a_template_is_filled_once():
    template = Template(name="critique", text="Q: {question}\nA: {answer}\nagain: {question}")
    filled = template.fill({"question": "What is {answer}?", "answer": "{question} \\1 {other}"})
    assert filled == "Q: What is {answer}?\nA: {question} \\1 {other}\nagain: What is {answer}?"


def test_a_template_leaves_braces_alone_that_are_no_gap():
    template = Template(name="json", text='{"units": [{}, { x }]} {{ {step_1}')
    assert template.gaps == {"step_1"}
    assert template.fill({"step_1": "s", "unused": "u"}) == '{"units": [{}, { x }]} {{ s'


def test_a_template_names_the_gaps_that_have_no_value():
    template = Template(name="critique", text="{solution} {question} {answer}")
    with pytest.raises(ValueError, match="critique") as caught:
        template.fill({"problem": "p", "answer": "7"})
    assert str(caught.value) == (
        "prompt template 'critique' needs ['question', 'solution'], got only ['answer', 'problem']; "
        "rename the gap or use a template meant for this stage"
    )


def test_a_templates_digest_tells_its_text_and_not_its_name():
    assert Template(name="a", text="x").digest == Template(name="b", text="x").digest
    assert Template(name="a", text="x").digest != Template(name="a", text="y").digest


def test_an_estimate_counts_outcomes_and_keeps_the_unscored_apart():
    outcomes = ["correct", "incorrect", "unscored", "correct", "unscored", "unscored"]
    assert Estimate.of(outcomes) == Estimate(correct=2, scored=3, unscored=3)
    assert Estimate.of(outcomes).rate == pytest.approx(2 / 3)
    assert Estimate.of(()) == Estimate()


def test_a_rate_without_scored_outcomes_is_unknown():
    assert Estimate.of(["unscored"]).rate is None
    assert Estimate(scored=4).rate == 0.0


@given(*[st.lists(st.sampled_from(["correct", "incorrect", "unscored"]))] * 2)
def test_estimates_add_up_like_the_outcomes_behind_them(some, more):
    assert Estimate.of(some) + Estimate.of(more) == Estimate.of(some + more)


@pytest.fixture
def tree():
    links = [(-1, "", "root"), (0, "a", "step"), (0, "b", "terminal"), (1, "c", "step"), (3, "d", "terminal")]
    depths = [0, 1, 1, 2, 3]
    return msgspec.structs.replace(
        bare(Tree),
        nodes=tuple(
            Node(parent=parent, step=step, depth=depth, kind=kind)
            for (parent, step, kind), depth in zip(links, depths, strict=True)
        ),
    )


def test_a_tree_knows_its_paths_and_children(tree):
    assert tree.path(0) == ()
    assert tree.path(4) == (1, 3, 4)
    assert tree.steps(4) == ("a", "c", "d")
    assert list(tree.terminals()) == [2, 4]
    assert tree.children() == ((1, 2), (3,), (), (4,), ())


def test_a_panel_hands_on_the_candidates_it_names_also_the_composed_one():
    replace, critique, panel = msgspec.structs.replace, full(schemas.Critique), full(schemas.Panel)
    one, two, composed = (replace(critique, id=name) for name in ("one", "two", "composed"))
    panel = replace(panel, composed=composed, candidates=("composed", "two"))
    empanelled = Empanelled(path=full(schemas.PathAlone), critiques=(one, two), panel=panel)
    assert empanelled.candidates == (composed, two)
    untold = replace(empanelled, panel=replace(panel, composed=None, candidates=("one",)))
    assert untold.candidates == (one,)


def test_a_pair_shows_critics_the_whole_wrong_path():
    replace, pair = msgspec.structs.replace, full(schemas.PathPair)
    pair = replace(
        pair,
        prefix=("a",),
        prefix_nodes=(1,),
        wrong=replace(pair.wrong, steps=("w", "x"), nodes=(2, 3), answer="7"),
        right=replace(pair.right, steps=("r",), nodes=(4,), answer="8"),
    )
    assert (pair.steps, pair.node_ids, pair.answer, pair.has_error) == (("a", "w", "x"), (1, 2, 3), "7", True)
    assert pair.right_steps == ("a", "r")


def test_provenance_has_no_default_that_could_hide_where_a_text_came_from():
    with pytest.raises(TypeError, match="Missing required argument"):
        Provenance()
