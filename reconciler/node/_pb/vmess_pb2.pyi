from reconciler.node._pb import user_pb2 as _user_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Account(_message.Message):
    __slots__ = ("id", "security_settings")
    ID_FIELD_NUMBER: _ClassVar[int]
    SECURITY_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    id: str
    security_settings: _user_pb2.SecurityConfig
    def __init__(self, id: _Optional[str] = ..., security_settings: _Optional[_Union[_user_pb2.SecurityConfig, _Mapping]] = ...) -> None: ...
