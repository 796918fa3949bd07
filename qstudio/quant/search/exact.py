"""The exact solver: a mixed-integer linear programme, as in HAWQ-V3 (Yao et al., 2021, section 3.3)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qstudio.core.errors import UserError
from qstudio.core.search import Problem, Solution, check_feasible, solution_of, solve_greedy

TIME_LIMIT_S = 10.0
"""Published problems take milliseconds; past this the best found so far is taken, and said not to be proven."""


def solve_exact(problem: Problem, time_limit_s: float = TIME_LIMIT_S) -> Solution:
    """Return the choice with the least damage within the limits, proven by scipy's HiGHS.

    One binary variable for each candidate, one of each group is 1; minimise the sum of damage subject to the sum of
    each limited resource.

    Args:
        problem: Tied groups get one equation for each activation width.
        time_limit_s: Seconds; past it the best found so far is returned with `exact` false.

    Raises:
        UserError: No choice keeps the limits.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    check_feasible(problem)
    if not problem.groups:
        return solution_of(problem, (), exact=True)
    sizes = [len(group.candidates) for group in problem.groups]
    candidates = [candidate for group in problem.groups for candidate in group.candidates]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    damage = np.array([candidate.damage for candidate in candidates], np.float64)
    # HiGHS stops within an absolute gap of 1e-6: damages are scaled so that this is far below any difference.
    scale = 1e6 / max(float(np.abs(damage).max(initial=0.0)), 1e-300)
    one_each = csr_matrix(
        (np.ones(len(candidates)), (np.repeat(np.arange(len(sizes)), sizes), np.arange(len(candidates))))
    )
    constraints = [LinearConstraint(one_each, 1, 1)]
    fixed = dict(problem.fixed)
    for name, most in problem.limits:
        costs = np.array([candidate.cost(name) for candidate in candidates], np.float64)
        room = most - fixed.get(name, 0.0)
        unit = max(float(np.abs(costs).max(initial=0.0)), 1e-300)
        # A limit that equals a sum of costs must not be missed by the last bit of a float.
        constraints.append(LinearConstraint(csr_matrix(costs / unit), -np.inf, room / unit * (1 + 1e-12) + 1e-9))
    constraints += [LinearConstraint(row, 0, 0) for row in _tie_rows(problem, starts)]
    found = milp(
        damage * scale,
        constraints=constraints,
        integrality=np.ones(len(candidates)),
        bounds=Bounds(0, 1),
        options={"time_limit": time_limit_s, "mip_rel_gap": 0.0},
    )
    if found.x is None:
        if found.status == 2:
            raise UserError("no mixture of the candidates keeps all limits", "search", "Raise one of the limits")
        return solve_greedy(problem)
    choice = [int(np.argmax(found.x[a:b])) for a, b in itertools.pairwise(starts)]
    return solution_of(problem, choice, exact=found.status == 0)


def _tie_rows(problem: Problem, starts: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """Yield, for each width of each tie, what two neighbouring groups choose of it: their difference is to be 0."""
    for tie in problem.ties:
        widths = {candidate.bits[1] for number in tie for candidate in problem.groups[number].candidates}
        for (one, other), width in itertools.product(itertools.pairwise(tie), sorted(widths)):
            row = np.zeros((1, starts[-1]))
            for number, sign in ((one, 1.0), (other, -1.0)):
                for index, candidate in enumerate(problem.groups[number].candidates):
                    if candidate.bits[1] == width:
                        row[0, starts[number] + index] = sign
            yield row
