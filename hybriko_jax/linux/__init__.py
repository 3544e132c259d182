"""Linux tools that a model may call, and how a call is run without harm.

A call is planned, shown, and only then run; what it changed can be taken back:

>>> from pathlib import Path
>>> from hybriko_jax.linux import Where, make_plan, run
>>> here = Where(root=Path.cwd(), cwd=Path.cwd())
>>> plan = make_plan("mv_command", {"source": "memo.txt", "destination": "old.txt"}, here)
>>> print(plan.line)
mv -- memo.txt old.txt
>>> print(plan.explanation)
옮기거나 이름을 바꿉니다: memo.txt → old.txt.
>>> result = run(plan)
>>> Path("old.txt").exists(), result.undo.lines
(True, ('mv old.txt memo.txt',))
>>> result.undo.apply()
>>> Path("memo.txt").exists()
True

A call that would leave the root is refused, in one line (`UserError`):

>>> make_plan("rm_command", {"path": "../notes.txt"}, here)  # doctest: +ELLIPSIS
Traceback (most recent call last):
hybriko_jax.errors.UserError: ../notes.txt: ...
"""

from hybriko_jax.linux.argv import command_line
from hybriko_jax.linux.execute import Result, run
from hybriko_jax.linux.paths import Where
from hybriko_jax.linux.plan import Plan, make_plan
from hybriko_jax.linux.tools import FINISH, TOOLS, call_fault
from hybriko_jax.linux.undo import Undo, empty_trash

__all__ = [
    "FINISH",
    "TOOLS",
    "Plan",
    "Result",
    "Undo",
    "Where",
    "call_fault",
    "command_line",
    "empty_trash",
    "make_plan",
    "run",
]
