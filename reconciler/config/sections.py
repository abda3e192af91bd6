"""
What may be configured: the sections and keys, their defaults, bounds and reasons.

These classes are the reference: what the operator reads, what is refused and
what the program uses are all made of them, so that they cannot differ.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from reconciler.config.words import checked_address, checked_holder, checked_lost_after


class _Section(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class DatabaseConfig(_Section):
    """PostgreSQL, where the desired state is read and the status is written."""

    dsn: SecretStr = Field(
        default=SecretStr(""),
        description="Connection string, as a URI or as key=value words. Better kept out of this file: left"
        " empty, it is the credential `dsn` ($CREDENTIALS_DIRECTORY/dsn), else $RECONCILER_DSN.",
    )
    listen_dsn: SecretStr = Field(
        default=SecretStr(""),
        description="Connection string for LISTEN alone, which a transaction pooler cannot carry. Left"
        " empty, it is the credential `listen_dsn`, else $RECONCILER_LISTEN_DSN, else the same as dsn.",
    )
    notify: bool = Field(
        default=True,
        description="Be rung by NOTIFY. Off, a change waits for the next full cycle.",
    )
    pool_size: int = Field(
        default=4,
        ge=1,
        le=50,
        description="Connections at most. Work on the database is short; a few serve many nodes.",
    )
    connect_timeout_seconds: int = Field(
        default=5,
        ge=2,
        le=60,
        description="How long one attempt to connect may take. libpq counts whole seconds, from two.",
    )
    statement_timeout_seconds: float = Field(
        default=30.0,
        ge=1,
        le=600,
        description="How long one statement may take. Reading a node of 100,000 keys takes about a second.",
    )
    prepared_statements: bool = Field(
        default=True,
        description="Prepare statements. Switch it off behind a transaction pooler that cannot carry them.",
    )


class CycleConfig(_Section):
    """When a node is looked at, and how much happens at once."""

    full_interval_seconds: float = Field(
        default=30.0,
        ge=0.2,
        le=3600,
        description="From one full cycle of a node to the next: what a lost bell, or a change by hand on"
        " the node, costs at most. Left out, it is 30, and 5 when database.notify is off. A node with"
        " more than some 40,000 users is listed less often, because its customers wait meanwhile; its rows"
        " are read at this interval all the same.",
    )
    probe_interval_seconds: float = Field(
        default=1.0,
        ge=0.1,
        le=3600,
        description="From one probe of a node to the next: how soon a restarted Xray is noticed.",
    )
    jitter_share: float = Field(
        default=0.1,
        ge=0,
        le=0.5,
        description="Share of an interval by which it varies, so that nodes do not fall in step.",
    )
    concurrency: int = Field(
        default=16,
        ge=1,
        le=1000,
        description="Cycles under way at once, over all nodes; it bounds memory and connections.",
    )
    in_flight: int = Field(
        default=128,
        ge=1,
        le=512,
        description="Steps under way at once on one node, at most. How many there are follows from how soon"
        " the node answers, so that its customers do not wait behind them; a distant node is given all.",
    )
    recheck_batch: int = Field(
        default=500,
        ge=1,
        le=1000,
        description="Removals whose rows are checked again in one go, right before they are sent. Those that"
        " are not sent within a second of their check are checked once more.",
    )


class NodeConfig(_Section):
    """How nodes are called. The TLS keys are for nodes whose address begins with `tls:`."""

    call_timeout_seconds: float = Field(
        default=2.0,
        ge=0.1,
        le=60,
        description="How long a probe or a step may take before the node counts as unreachable.",
    )
    listing_timeout_seconds: float = Field(
        default=30.0,
        ge=0.1,
        le=600,
        description="How long the listing of one inbound may take; 100,000 users are 15 MB.",
    )
    backoff_initial_seconds: float = Field(
        default=1.0,
        ge=0.1,
        le=3600,
        description="Wait after the first failure of a node; it doubles with each further one.",
    )
    backoff_max_seconds: float = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="The longest wait: how late a node that is back may be noticed.",
    )
    tls_ca: str = Field(
        default="", description="PEM file of the authorities to trust. Empty: those of the system."
    )
    tls_certificate: str = Field(
        default="", description="PEM file of our certificate, for nodes that ask for one."
    )
    tls_key: str = Field(
        default="",
        description="PEM file of its key. Left empty, it is the credential `tls.key` where there is one.",
    )


class GuardConfig(_Section):
    """
    How many customers a mistake may cost before somebody looks.

    When the early removals of a plan and of the last hour exceed the greater
    of floor and share of a node's keys, all early ones of the plan are held.
    """

    floor: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="Early removals per node and hour that are always let through.",
    )
    share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the node's live promises that may be removed early in an hour.",
    )
    quota_floor: int = Field(
        default=5,
        ge=0,
        le=1_000_000,
        description="The floor for keys over their quota, which have a budget of their own.",
    )
    quota_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="The share for keys over their quota. A mass of them is what a bug looks like.",
    )
    clock_tolerance_seconds: float = Field(
        default=60.0,
        ge=1,
        le=3600,
        description="By how much the database's clock may depart from ours between two reads; beyond it,"
        " removals freeze.",
    )


class MoveConfig(_Section):
    """Keys that leave a node for another: how soon they go, and whether any do without an operator."""

    grace_seconds: int = Field(
        default=3600,
        ge=0,
        le=2_592_000,
        description="How long a node keeps a key after another one surely has it: the customer's link still"
        " names the old node. `--grace` says otherwise for one command.",
    )
    unreachable_after_seconds: Annotated[int, AfterValidator(checked_lost_after)] = Field(
        default=0,
        ge=0,
        le=604_800,
        description="Move keys off a node that has not answered for so long, without being told; 0 is never,"
        " and anything below 300 is refused. None is moved while half of the nodes or more do not answer.",
    )
    unreachable_share: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of a pool's keys that may leave their nodes in an hour when they do so by"
        " themselves. Keys that an operator moves are counted, and never held up.",
    )


class TrafficConfig(_Section):
    """How soon traffic counts, and who has used up his quota is noticed."""

    interval_seconds: float = Field(
        default=30.0,
        ge=0.2,
        le=3600,
        description="From one reading of a node's counters to the next: what is lost at most when its Xray"
        " ends. A node with more than 75,000 users is read less often, for its customers' sake.",
    )


class LeaseConfig(_Section):
    """One daemon holds a node at a time; another takes over when it falls silent."""

    ttl_seconds: float = Field(
        default=15.0,
        ge=1,
        le=300,
        description="How long a lease lasts without renewal: how soon a dead daemon is replaced.",
    )
    renew_seconds: float = Field(
        default=5.0,
        ge=0.2,
        le=100,
        description="From one renewal to the next; at most a third of ttl_seconds.",
    )
    margin_seconds: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="How long before its lease ends a holder stops acting; at most a third of ttl_seconds.",
    )
    holder: Annotated[str, AfterValidator(checked_holder)] = Field(
        default="",
        description="Name of this daemon in the leases. Empty: the host's name and a random part.",
    )


class HttpConfig(_Section):
    """Metrics and health, for Prometheus and for whoever asks how it goes."""

    listen: Annotated[str, AfterValidator(checked_address)] = Field(
        default="127.0.0.1:9108",
        description="Address as host:port, IPv6 in brackets; port 0 takes a free one. Or unix:/path, a socket"
        " for all of this host. Empty: no HTTP at all. There is no authentication, so keep it on loopback or"
        " behind a firewall.",
    )


class LogConfig(_Section):
    """What is told, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is told."
    )
    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="auto: coloured on a terminal, entries with fields where journald listens, else JSON.",
    )


class Config(_Section):
    """The whole configuration, checked; frozen."""

    database: DatabaseConfig = DatabaseConfig()
    cycle: CycleConfig = CycleConfig()
    node: NodeConfig = NodeConfig()
    guard: GuardConfig = GuardConfig()
    move: MoveConfig = MoveConfig()
    traffic: TrafficConfig = TrafficConfig()
    lease: LeaseConfig = LeaseConfig()
    http: HttpConfig = HttpConfig()
    log: LogConfig = LogConfig()
