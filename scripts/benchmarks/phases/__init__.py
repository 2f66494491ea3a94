"""The phases: each is a function that measures its steps on one system."""

from . import clients, crash, data, files, history, idle, mixed, small

# The key is the word of --phases.
PHASES = {
    "create": files.create,
    "rename": files.rename,
    "rm": files.remove,
    "untar": files.untar,
    "list": files.list_tree,
    "clone": files.clone,
    "stream": data.stream,
    "random": data.random_access,
    "append": small.append,
    "sqlite": small.sqlite,
    "clients": clients.clients,
    "mixed": mixed.mixed,
    "idle": idle.idle,
    "crash": crash.crash,
    "history": history.history,
}
