"""Options that mean the same in every command."""

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

DatasetOption = Annotated[Optional[str], typer.Option("--dataset", help="Dataset file (native JSON).", show_default=False)]
EncoderOption = Annotated[Optional[str], typer.Option("--encoder", help="Encoder, of features/encoders/.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
OnMismatchOption = Annotated[
    Optional[Literal["refuse", "redo"]],
    typer.Option("--on-mismatch", help="What becomes of a stored video whose file has changed; default: refuse.", show_default=False),
]
RunOption = Annotated[Optional[Path], typer.Option("--run", help="Run folder; default: the newest finished run.", show_default=False)]
RunsOption = Annotated[Optional[str], typer.Option("--runs", help="Folder of the runs.", show_default=False)]
SetOption = Annotated[
    Optional[list[str]],
    typer.Option("--set", metavar="KEY=VALUE", help="One setting, such as extract.fit=crop; repeatable.", show_default=False),
]
StoreOption = Annotated[Optional[str], typer.Option("--store", help="Token store.", show_default=False)]
StoresOption = Annotated[
    Optional[list[str]], typer.Option("--store", help="Token store; repeat it for a head that reads several.", show_default=False)
]
