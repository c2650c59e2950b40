"""Small wrong changes of Python code: a comparison turned round, a number off by one, a call left out.

A change replaces the text of one node of the syntax tree and leaves everything before it where it was. What no user
can meet is left alone: annotations, messages of errors, assertions, and what only type checkers read.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}

NAMES = {
    a: b
    for pair in (
        "min max", "any all", "floor ceil", "argmin argmax", "zeros ones", "zeros_like ones_like", "sin cos",
        "sum mean", "minimum maximum", "amin amax", "logical_and logical_or", "exp expm1", "log log1p",
    )
    for a, b in (pair.split(), reversed(pair.split()))
}  # fmt: skip
"""Functions whose answers have the same kind."""


ONE_ORDER = (
    "isinstance hasattr getattr setattr cast "  # which cannot be turned round
    "min max minimum maximum hypot gcd lcm equal logical_and logical_or array_equal"  # where it says the same
).split()
"""Functions whose first two arguments do not change places."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    path: below the package, with forward slashes. kind: what sort of change. start, end: offsets in the file's text
    that `text` replaces. line: its first line, from 1. scope: the lines whose tests can see it: its own, or those of
    the function whose default it is, of its class, or of the whole file. before, after: the code, on one line.
    """

    path: str
    kind: str
    start: int
    end: int
    text: str
    line: int
    scope: tuple[int, int]
    before: str
    after: str

    def applied(self, source: str) -> str:
        return source[: self.start] + self.text + source[self.end :]


def mutants(source: str, path: str) -> list[Mutant]:
    """Every change of a file, in the order of its text, each once."""
    found = {(m.start, m.end, m.text): m for m in _Walk(source, path).all()}
    return sorted(found.values(), key=lambda m: (m.start, m.end, m.text))


class _Walk:
    def __init__(self, source: str, path: str) -> None:
        self.path, self.source, self.tree = path, source, ast.parse(source)
        self.lines = source.splitlines(keepends=True)
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    def all(self) -> Iterator[Mutant]:
        yield from self._block(self.tree, (1, len(self.lines)))

    def _block(self, node: ast.AST, scope: tuple[int, int]) -> Iterator[Mutant]:
        """Those of a node and all below; scope is where the code around it shows."""
        if _unseen(node):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside = (node.body[0].lineno, node.end_lineno or node.lineno)
            defaults = [d for d in (*node.args.defaults, *node.args.kw_defaults) if d is not None]
            for part in defaults:
                yield from self._block(part, inside)
            decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
            compiled = "compiled" in decorators or "njit" in decorators  # which no tracing sees
            for statement in node.body:
                yield from self._block(statement, (1, len(self.lines)) if compiled else (0, 0))
            return
        if isinstance(node, ast.ClassDef):
            scope = (node.lineno, node.end_lineno or node.lineno)
            for statement in node.body:
                yield from self._block(statement, scope)
            return
        if isinstance(node, (ast.expr, ast.stmt)):
            for kind, new in _changes(node):
                yield self._mutant(node, kind, new, scope)
            if isinstance(node, (ast.If, ast.IfExp)) and not _has_opposite(node.test):
                yield self._mutant(node.test, "condition", ast.UnaryOp(ast.Not(), node.test), scope)
        if isinstance(node, ast.AnnAssign):
            children: list[ast.AST] = [] if node.value is None else [node.value]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("cast", "TypeVar", "field"):
            children = []
        else:
            children = list(ast.iter_child_nodes(node))
        for child in children:
            yield from self._block(child, scope)

    def _mutant(self, node: ast.expr | ast.stmt, kind: str, new: ast.AST, scope: tuple[int, int]) -> Mutant:
        start, end = (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno, node.end_col_offset),
        )
        text = ast.unparse(new)
        if isinstance(new, ast.expr):
            text = text if isinstance(new, (ast.Constant, ast.Name, ast.Call)) else f"({text})"
        last = node.end_lineno or node.lineno
        shown = self.source[self.starts[node.lineno - 1] : self.starts[last]]
        shift = self.starts[node.lineno - 1]
        changed = shown[: start - shift] + text + shown[end - shift :]
        here = scope if scope != (0, 0) else (node.lineno, last)
        return Mutant(self.path, kind, start, end, text, node.lineno, here, _flat(shown), _flat(changed))

    def _offset(self, line: int | None, column: int | None) -> int:
        """ast counts columns in bytes of UTF-8."""
        assert line is not None
        assert column is not None
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())


def _unseen(node: ast.AST) -> bool:
    """What no user of the code can meet."""
    if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.arg)):
        return True
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.Assign) and any(ast.unparse(t).startswith("__") for t in node.targets):
        return True
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return any(ast.unparse(d) == "overload" for d in node.decorator_list)
    return False


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[str, ast.AST]]:
    """The changes of this node itself: what sort, and what stands in its place."""

    def changed(**fields: object) -> ast.AST:
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                for other in COMPARISONS[type(operator)]:
                    yield "comparison", changed(ops=[*node.ops[:i], other(), *node.ops[i + 1 :]])
        case ast.BinOp(op=operator) if type(operator) in ARITHMETIC:
            if not any(_is_text(side) for side in (node.left, node.right)):
                yield "arithmetic", changed(op=ARITHMETIC[type(operator)]())
        case ast.AugAssign(op=operator) if type(operator) in ARITHMETIC and not _is_text(node.value):
            yield "arithmetic", changed(op=ARITHMETIC[type(operator)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield "sign", node.operand
        case ast.BoolOp():
            yield "and/or", changed(op=ast.And() if isinstance(node.op, ast.Or) else ast.Or())
        case ast.Constant(value=bool()):
            yield "constant", ast.Constant(not node.value)
        case ast.Constant(value=int() as value):
            yield "constant", ast.Constant(value + 1)
            if value == 1:
                yield "constant", ast.Constant(0)
        case ast.Constant(value=float() as value):
            yield "constant", ast.Constant(value * 2 if value else 1.0)
        case ast.Call():
            yield from _calls(node)
        case ast.Subscript(slice=ast.Slice() as bounds):
            for name in ("lower", "upper"):
                bound = getattr(bounds, name)
                if bound is not None and not isinstance(bound, ast.Constant):
                    one_more = copy.copy(bounds)
                    setattr(one_more, name, ast.BinOp(bound, ast.Add(), ast.Constant(1)))
                    yield "slice", changed(slice=one_more)
        case ast.Expr(value=ast.Call()):
            yield "left out", ast.Pass()
        case ast.Return(value=value) if value is not None and ast.unparse(value) != "None":
            yield "return", ast.Return(ast.Constant(None))
        case _:
            pass


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in NAMES:
        func: ast.expr = (
            ast.Attribute(node.func.value, NAMES[name], ast.Load())
            if isinstance(node.func, ast.Attribute)
            else ast.Name(NAMES[name], ast.Load())
        )
        yield "function", ast.Call(func, node.args, node.keywords)
    if len(node.args) > 1 and not any(isinstance(a, ast.Starred) for a in node.args[:2]):
        first, second, *more = node.args
        if ast.unparse(first) != ast.unparse(second) and name not in ONE_ORDER:
            yield "swapped", ast.Call(node.func, [second, first, *more], node.keywords)
    for i, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):  # which only asserts
            yield "keyword", ast.Call(node.func, node.args, node.keywords[:i] + node.keywords[i + 1 :])


def _has_opposite(test: ast.expr) -> bool:
    """Whether the changes of a condition itself turn it round already."""
    turned = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
    if isinstance(test, ast.Compare):
        return len(test.ops) == 1 and isinstance(test.ops[0], turned)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _is_text(node: ast.expr) -> bool:
    """Strings are joined, and paths, by operators that mean nothing else there."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _flat(text: str) -> str:
    return " ".join(text.split())
