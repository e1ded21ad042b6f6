"""Settings of a broker with their names spelled out: `Limits` and `Acl` are dictionaries that editors complete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Acl", "Limits"]


class Limits(dict[str, Any]):
    """What clients of a `Broker` may use at most: the table `[limits]`, for `Broker(limits=...)`.

        ferromq.Broker(limits=ferromq.Limits(max_inflight=100, max_packet_size="256 KiB"))

    What is left out has the default of the file, which `ferromq broker --check` shows.

    Args:
        max_connections: Connections at one time.
        max_inflight: QoS 1 and 2 messages sent to one client and not acknowledged.
        max_packet_size: Larger packets are not accepted, bytes or as `"256 KiB"` (MQTT 5: Maximum Packet Size).
        connect_timeout: How long CONNECT may take, seconds or as `"10s"`.
        subscriptions_max: Subscriptions of one session.
        retained_messages_max: Retained messages of the broker.
        topic_levels_max: Levels of a topic or filter.
        topic_bytes_max: Bytes of a topic or filter.
        filters_max: Filters of one SUBSCRIBE or UNSUBSCRIBE.
        user_properties_max: User properties of one packet.
    """

    def __init__(
        self,
        *,
        max_connections: int | None = None,
        max_inflight: int | None = None,
        max_packet_size: int | str | None = None,
        connect_timeout: float | str | None = None,
        subscriptions_max: int | None = None,
        retained_messages_max: int | None = None,
        topic_levels_max: int | None = None,
        topic_bytes_max: int | str | None = None,
        filters_max: int | None = None,
        user_properties_max: int | None = None,
    ) -> None:
        given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__({name: value for name, value in given.items() if value is not None})

    def __repr__(self) -> str:
        return f"Limits({', '.join(f'{name}={value!r}' for name, value in self.items())})"


class Acl(dict[str, Any]):
    """Who may publish and subscribe to what, for `Broker(acl=...)`: of the rules the first that fits decides.

        acl = ferromq.Acl().allow("plant/#", users=["dev"]).allow("device/%c/#", action="publish")
        ferromq.Broker(users={"dev": "secret"}, acl=acl)

    Args:
        no_match: What holds for what no rule is about. Default: `"deny"` if there are rules, else `"allow"`.
    """

    def __init__(self, *, no_match: Literal["allow", "deny"] | None = None) -> None:
        super().__init__(rules=[])
        if no_match is not None:
            self["no_match"] = no_match

    def allow(
        self,
        *filters: str,
        action: Literal["publish", "subscribe", "all"] = "all",
        users: Iterable[str] = (),
        client_ids: Iterable[str] = (),
        literals: Iterable[str] = (),
    ) -> Self:
        """Add a rule that allows.

        Args:
            *filters: Topics; in them `%c` stands for the client identifier and `%u` for the user name. None is any.
            action: What it is about.
            users: User names; none is everybody.
            client_ids: Client identifiers; none is everybody.
            literals: Topics and filters that are compared as they are written: `#` is the right to subscribe to `#`.
        """
        return self._add("allow", filters, action, users, client_ids, literals)

    def deny(
        self,
        *filters: str,
        action: Literal["publish", "subscribe", "all"] = "all",
        users: Iterable[str] = (),
        client_ids: Iterable[str] = (),
        literals: Iterable[str] = (),
    ) -> Self:
        """Add a rule that denies. Arguments are those of `allow`."""
        return self._add("deny", filters, action, users, client_ids, literals)

    def _add(  # noqa: PLR0917 - one for each key
        self,
        permission: str,
        filters: Iterable[str],
        action: str,
        users: Iterable[str],
        client_ids: Iterable[str],
        literals: Iterable[str],
    ) -> Self:
        lists = {"filters": filters, "users": users, "client_ids": client_ids, "literals": literals}
        for name, values in lists.items():
            if isinstance(values, str):
                raise TypeError(f"{name} is a list of str: write [{values!r}]")
        given = {name: list(values) for name, values in lists.items() if values}
        self["rules"].append({"permission": permission, "action": action, **given})
        return self

    def __repr__(self) -> str:
        return f"Acl({len(self['rules'])} rules)"
