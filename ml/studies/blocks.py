"""A study's content for the page: tables, plots, pictures and paragraphs, as plain data."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """One figure. In percent unless the table says otherwise."""

    value: float
    spread: float | None = None  # standard deviation over the seeds; None for what has no seed
    low: float | None = None  # 95 % interval, bootstrap over pictures and seeds
    high: float | None = None
    paper: float | None = None  # the paper's own figure


@dataclass(frozen=True)
class Row:
    label: str  # unique within its study
    cells: dict[str, Cell]  # by column; a column that is not there has no figure


@dataclass(frozen=True)
class Table:
    title: str
    columns: dict[str, str]  # name -> heading
    rows: list[Row]
    note: str = ""  # below the table
    counts: tuple[str, ...] = ()  # columns that count something

    def digits(self, column: str) -> int:
        """Decimals of a column's figures."""
        return 0 if column in self.counts else 1


@dataclass(frozen=True)
class Plot:
    """A line or bar plot of a table's figures."""

    title: str
    x: str  # axis label
    y: str
    series: dict[str, list[tuple[float, float, float]]] = field(default_factory=dict)
    """name -> (x, mean, spread); the paper's own series is called "paper" or "paper (...)"."""


@dataclass(frozen=True)
class Picture:
    caption: str
    jpeg: bytes


@dataclass(frozen=True)
class Text:
    """A paragraph, plain text; `code` between backticks."""

    text: str


Block = Table | Plot | Picture | Text
