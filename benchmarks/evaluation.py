"""k-NN and linear probe beside scikit-learn's and lightly's on the same features: the same answers, and at least as fast?"""

import sys
import time
import warnings
from statistics import median

import torch
import torch.nn.functional as F
from common import save, table
from threadpoolctl import threadpool_limits

REPEATS = 15


def features(
    count: int, dim: int, seed: int, classes: int = 10
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clouds around class centres that overlap."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    targets = torch.arange(count) % classes
    return centres[targets] + 4.0 * torch.randn(count, dim, generator=random), targets


def alternate(sides: dict, repeats: int = REPEATS) -> dict[str, float]:
    """Median seconds of each side, in an order that turns."""
    names, times = list(sides), {name: [] for name in sides}
    for side in sides.values():
        side()  # warm
    for turn in range(repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            began = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in times.items()}


def knn(count: int, queries: int, dim: int, k: int, device: str) -> dict:
    from lightly.utils.benchmarking import knn_predict as lightly_knn
    from sklearn.neighbors import KNeighborsClassifier

    from nenya_nb.evaluation import knn_predict

    (x, y), (q, _) = (
        [t.to(device) for t in features(n, dim, s)] for n, s in ((count, 0), (queries, 1))
    )

    def by_lightly():
        bank, asked = F.normalize(x, dim=1).T.contiguous(), F.normalize(q, dim=1)
        parts = [lightly_knn(p, bank, y, 10, knn_k=k, knn_t=0.07)[:, 0] for p in asked.split(512)]
        return torch.cat(parts)

    sides = {"ours": lambda: knn_predict(x, y, q, k), "lightly": by_lightly}
    if device == "cpu":
        vote = KNeighborsClassifier(
            k, metric="cosine", weights=lambda d: torch.from_numpy((1 - d) / 0.07).exp().numpy()
        )
        vote.fit(x.numpy(), y.numpy())
        sides["scikit-learn"] = lambda: torch.from_numpy(vote.predict(q.numpy()))
    answers = {name: side().cpu() for name, side in sides.items()}
    same = {
        name: (answer == answers["ours"]).float().mean().item() for name, answer in answers.items()
    }
    return {
        "what": f"k-NN {count}x{dim}, {queries} asked, k={k}, {device}",
        "seconds": alternate(sides),
        "same": same,
    }


def probe(count: int, queries: int, dim: int, C: float) -> dict:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from nenya_nb.evaluation import linear_probe

    (x, y), (q, t) = features(count, dim, 0), features(queries, dim, 1)

    def by_sklearn():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=1000))
            return torch.from_numpy(probe.fit(x.numpy(), y.numpy()).predict(q.numpy()))

    ours, answers = linear_probe(x, y, q, t, Cs=[C]), by_sklearn()
    sides = {"ours": lambda: linear_probe(x, y, q, t, Cs=[C]), "scikit-learn": by_sklearn}
    same = {"scikit-learn": (ours.predict(q) == answers).float().mean().item()}
    accuracy = {"ours": float(ours), "scikit-learn": (answers == t).float().mean().item()}
    return {
        "what": f"linear probe {count}x{dim}, C={C:g}",
        "seconds": alternate(sides),
        "same": same,
        "accuracy": accuracy,
    }


def main() -> None:
    torch.set_num_threads(1)
    with threadpool_limits(1):  # scikit-learn has threads of its own
        rows = [knn(10_000, 2_000, 128, 20, "cpu"), knn(20_000, 2_000, 512, 200, "cpu")]
        rows += [probe(5_000, 1_000, 128, 0.01), probe(5_000, 1_000, 512, 1.0)]
    if torch.cuda.is_available():
        rows += [knn(100_000, 10_000, 512, 200, "cuda")]
    lines, missed = [], []
    for row in rows:
        for other in [name for name in row["seconds"] if name != "ours"]:
            ratio = row["seconds"][other] / row["seconds"]["ours"]
            lines.append([row["what"], other, row["same"][other], ratio])
            if row["same"][other] < 0.999 or ratio < 1:
                missed.append(
                    f"{row['what']} beside {other}: {row['same'][other]:.4f} the same, {ratio:.2f} times as fast"
                )
    print(table(lines, ["what", "beside", "share of same answers", "times as fast"]))
    save("evaluation", {"rows": rows}, "lightly", "scikit-learn")
    if missed:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
