"""A study from a file that is no part of fenland."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection
from importlib import util
from pathlib import Path
from types import ModuleType

from fenland.lab.errors import BadInput
from fenland.lab.study.study import Study


def load(word: str, taken: Collection[str] = ()) -> Study:
    """The study of a file: what it calls ``STUDY``.

    The file is run, as Python runs any program. Worker processes get its functions by value, so that they need not
    find it.

    Args:
        word: path of the file.
        taken: names that its study may not have.

    Raises:
        BadInput: there is no such file, it cannot be run, or it holds no study.
    """
    path = Path(word).expanduser().resolve()
    if not path.is_file():
        raise BadInput("NAME", word, "no such file; give a study's name or the path of its Python file")
    module = _run(path)
    study = getattr(module, "STUDY", None)
    if not isinstance(study, Study):
        raise BadInput("NAME", word, "holds no study; it has to end with STUDY = Study(...) of fenland.lab.study")
    if study.name in taken or study.name == "all":
        raise BadInput("NAME", word, f"its study is called {study.name}, as one of fenland's is; call it otherwise")
    return dataclasses.replace(study, file=path)


def _run(path: Path) -> ModuleType:
    """The module of a file; run anew each time, since it may have been edited."""
    from joblib.externals.loky.cloudpickle_wrapper import dumps

    name = "study_" + "".join(each if each.isalnum() else "_" for each in path.stem)  # never that of a library
    spec = util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BadInput("NAME", path, "is no Python file")
    module = util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    try:
        spec.loader.exec_module(module)
    except BadInput:
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        raise BadInput("NAME", path, f"cannot be run ({type(error).__name__}: {words})") from error
    sys.modules[dumps.__module__].register_pickle_by_value(module)  # what worker processes are sent their work with
    return module
