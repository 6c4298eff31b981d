from .atomic import atomic_write as atomic_write
from .atomic import atomic_write_folder as atomic_write_folder
from .atomic import write_json as write_json
from .copies import cached_copy as cached_copy
from .copies import local_copy as local_copy
from .paths import StoragePath as StoragePath
from .paths import Unreachable as Unreachable
from .paths import storage_path as storage_path
from .records import read_json as read_json
from .records import read_record as read_record
from .records import read_yaml as read_yaml

__all__ = [
    "StoragePath",
    "Unreachable",
    "atomic_write",
    "atomic_write_folder",
    "cached_copy",
    "local_copy",
    "read_json",
    "read_record",
    "read_yaml",
    "storage_path",
    "write_json",
]
