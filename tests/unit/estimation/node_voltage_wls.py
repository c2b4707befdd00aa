"""State estimation the way textbooks have it, written independently of `cosim.estimation` as a reference for it.

State: complex voltages of all nodes (less those without load, which keeps digits), and the power of each site.
Kirchhoff's current law at every node is an equality constraint, at nodes without load that of zero injection.
Gauss-Newton on the sparse augmented matrix of G. D. Hachtel (A. Gjelsvik, S. Aam, L. Holten, Hachtel's augmented matrix
method, IEEE Trans. PAS-104(11), 1985), which needs neither large weights for constraints nor the product of Jacobians.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg


@dataclass(frozen=True)
class Network:
    """``y`` (n_node, n_node) [S] and ``v0`` (n_node,) [V] without loads, ``v_base`` (n_node,) [V]. ``loads`` are
    (node, node or None for ground, site, share of its power). Each of ``readings`` is ("v", nodes): mean voltage [pu];
    ("p" or "q", conductors): power into them [kW, kvar]; ("i", conductors): the highest current [A]; ("site", k): the
    k-th of [p of all sites, q of all sites]. A conductor is (node, row (1, n_node) [S])."""

    y: sp.csc_matrix
    v0: np.ndarray
    v_base: np.ndarray
    loads: tuple
    n_site: int
    readings: tuple

    @property
    def start(self):
        return np.zeros(2 * len(self.v0) + 2 * self.n_site)

    def split(self, state):
        """Voltages less ``v0`` (n_node,) [V], and the sites' power (2 n_site,) [kW, kvar]."""
        n = len(self.v_base)
        return (state[:n] + 1j * state[n : 2 * n]) * self.v_base, state[2 * n :]

    def mismatch(self, state):
        """Sum of currents at every node [A], real parts then imaginary parts, and its sparse Jacobian."""
        fall, x = self.split(state)
        v, n, columns = self.v0 + fall, len(fall), len(state)
        current = self.y @ fall
        base = sp.diags(self.v_base)
        slope = sp.lil_matrix((n, columns), dtype=complex)
        slope[:, : 2 * n] = sp.hstack([self.y @ base, 1j * self.y @ base])
        for a, b, site, share in self.loads:
            u = v[a] - (0.0 if b is None else v[b])
            per_kw = 1000.0 * share / np.conj(u)
            i = per_kw * (x[site] - 1j * x[self.n_site + site])
            for node, sign in ((a, 1.0), (b, -1.0)):
                if node is None:
                    continue
                current[node] += sign * i
                slope[node, 2 * n + site] += sign * per_kw
                slope[node, 2 * n + self.n_site + site] -= 1j * sign * per_kw
                for other, of_u in ((a, 1.0), (b, -1.0)):
                    if other is not None:
                        by_u = -sign * of_u * i / np.conj(u) * self.v_base[other]
                        slope[node, other] += by_u
                        slope[node, n + other] -= 1j * by_u
        slope = slope.tocsr()
        return np.concatenate([current.real, current.imag]), sp.vstack([slope.real, slope.imag]).tocsr()

    def read(self, state):
        """What the meters would read, and its sparse Jacobian."""
        fall, x = self.split(state)
        v, n, values, rows = self.v0 + fall, len(fall), [], []
        for kind, what in self.readings:
            row = np.zeros(2 * n + 2 * self.n_site)
            if kind == "site":
                value, row[2 * n + what] = x[what], 1.0
            elif kind == "v":
                value = np.mean(np.abs(v[what]) / self.v_base[what])
                row[what] = v[what].real / np.abs(v[what]) / len(what)
                row[n + np.asarray(what)] = v[what].imag / np.abs(v[what]) / len(what)
            else:
                value, slope = self._flow(kind, what, v, fall)
                row[: 2 * n] = slope
            values.append(value)
            rows.append(row)
        return np.array(values), sp.csr_matrix(np.array(rows).reshape(len(values), -1))

    def _flow(self, kind, conductors, v, fall):
        n, power, slope, highest = len(v), 0.0, np.zeros(2 * len(v), dtype=complex), (0.0, None)
        for node, y in conductors:
            y = np.asarray(y.todense()).ravel()
            i, by_v = y @ self.v0 + y @ fall, np.concatenate([y * self.v_base, 1j * y * self.v_base])
            if abs(i) > highest[0]:
                highest = (abs(i), (np.conj(i) * by_v).real / abs(i))
            power += v[node] * np.conj(i) / 1000.0
            slope += v[node] * np.conj(by_v) / 1000.0
            slope[[node, n + node]] += np.array([1.0, 1j]) * self.v_base[node] * np.conj(i) / 1000.0
        return {"p": (power.real, slope.real), "q": (power.imag, slope.imag), "i": highest}[kind]


def estimate(network, value, sigma, mean, covariance):
    """Estimate of the sites' power (2 n_site,) [kW, kvar] and its covariance, from readings and history."""
    state = network.start
    state[-len(mean) :] = mean
    for _ in range(30):
        calculated, h = network.read(state)
        mismatch, a = network.mismatch(state)
        here = sp.hstack([sp.csr_matrix((len(mean), len(state) - len(mean))), sp.eye(len(mean))])
        matrix = sp.bmat(
            [
                [sp.diags(sigma**2), None, None, h],
                [None, sp.csr_matrix(covariance), None, here],
                [None, None, sp.csr_matrix((len(mismatch),) * 2), a],
                [h.T, here.T, a.T, None],
            ],
            format="csc",
        )
        solve = scipy.sparse.linalg.splu(matrix).solve
        known = np.concatenate([value - calculated, mean - state[-len(mean) :], -mismatch, np.zeros(len(state))])
        step = solve(known)
        step += solve(known - matrix @ step)
        state = state + step[-len(state) :]
        if np.abs(step[-len(mean) :]).max() < 1e-7:
            unit = np.zeros((matrix.shape[0], len(mean)))
            unit[-len(mean) :] = np.eye(len(mean))
            return state[-len(mean) :], -solve(unit)[-len(mean) :]
    raise AssertionError("the reference does not converge")


@dataclass(frozen=True)
class NodeVoltageFlow:
    """A load flow for `cosim.estimation` on the same equations: Newton's method, slopes by implicit differentiation."""

    network: Network
    sites: tuple[str, ...]

    def predict(self, p_kw, q_kvar):
        return np.array([self.linearised(p, q)[0] for p, q in zip(p_kw, q_kvar, strict=True)])

    def linearised(self, p_kw, q_kvar):
        state, by_x = self._solve(p_kw, q_kvar)
        reading, h = self.network.read(state)
        return reading, h[:, : len(by_x)] @ by_x + h[:, len(by_x) :].toarray()

    def voltage_slope(self, p_kw, q_kvar):
        state, by_x = self._solve(p_kw, q_kvar)
        v = (self.network.v0 + self.network.split(state)[0])[:, np.newaxis]
        real, imaginary = np.split(by_x, 2)
        return (v.real * real + v.imag * imaginary) / np.abs(v)

    def _solve(self, p_kw, q_kvar):
        state, n = self.network.start, 2 * len(self.network.v_base)
        state[n:] = np.concatenate([p_kw, q_kvar])
        for _ in range(30):
            mismatch, a = self.network.mismatch(state)
            step = scipy.sparse.linalg.spsolve(a[:, :n].tocsc(), -mismatch)
            state[:n] += step
            if np.abs(step).max() < 1e-13:
                break
        _, a = self.network.mismatch(state)
        return state, -scipy.sparse.linalg.splu(a[:, :n].tocsc()).solve(a[:, n:].toarray())
