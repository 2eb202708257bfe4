"""The names of all files in a run's and in a sweep's directory; no other module spells them."""

# of a run or a sweep
LOCK = ".lock"
TRACKING = ".tracking"

# of a run, relative to its directory
RESULT = "result.json"
METRICS = "metrics.csv"
LAYERS = "layers.csv"
TEST_HITS = "test_hits.txt"
WEIGHTS_BY_EPOCH = "weights_by_epoch.bin"
LAST = "checkpoints/last.ckpt"
BEST = "checkpoints/best.ckpt"
FIGURES = "figures"
LOG = "train.log"
EVENTS = "events.out.tfevents.*"
HYDRA = ".hydra"
CONFIG = ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"
OF_HYDRA = ("config.yaml", "hydra.yaml", "overrides.yaml")  # in `HYDRA`
# those that a run's marker does not list
UNLISTED = (RESULT, LOG, LOCK, *(f"{HYDRA}/{name}" for name in OF_HYDRA))

# the small results of a training, beside its marker
TABLES = (METRICS, LAYERS, TEST_HITS)

# of a sweep
MANIFEST = "sweep.json"
RESULTS = "results.csv"
TABLE = "runs.jsonl"
WEIGHTS = "weights.bin"
MULTIRUN = "multirun.yaml"
SET_ASIDE = ".set_aside"
RECYCLED = ".recycled"
WORKERS = ".workers"
STATES = ".stacks"
UNDER_WAY = "under_way"

# of a search, beside those of a sweep
SEARCH = "search.jsonl"
SEARCH_RESULTS = "optimization_results.yaml"
OPTUNA_JOURNAL = "optuna.log"
OPTUNA_DATABASE = "optuna.db"

# what a run's directory holds before its training has written anything
BEFORE_TRAINING = frozenset({HYDRA, LOG, LOCK})
# by these files a sweep's directory is known as one
OF_A_SWEEP = frozenset({MANIFEST, MULTIRUN, LOCK})
