"""Who may reach whom on Kubernetes, as a network plugin would decide it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from itertools import product

from tests.deploy.manifests import PODS, PROGRAMS, Object, each_overlay, objects, pod, selects

PROMETHEUS = {"namespace": "monitoring", "app.kubernetes.io/name": "prometheus"}
STRANGER = {"namespace": "elsewhere", "app.kubernetes.io/component": "api"}


def is_peer(peer: Object, other: Mapping[str, str]) -> bool:
    """Whether an entry of `from` or `to` means a pod, or the address in `other["ip"]`."""
    if block := peer.get("ipBlock"):
        address = ip_address(other.get("ip", "0.0.0.0"))
        inside = [address in ip_network(net) for net in (block["cidr"], *block.get("except", ()))]
        return "ip" in other and inside[0] and not any(inside[1:])
    near = other.get("namespace", "gamma")
    namespaces = peer.get("namespaceSelector", {"matchLabels": {"name": "gamma"}})
    return (
        "ip" not in other
        and selects(namespaces, {"name": near, "kubernetes.io/metadata.name": near})
        and selects(peer.get("podSelector", {}), other)
    )


def is_port(entry: Object, number: int) -> bool:
    return entry["port"] <= number <= entry.get("endPort", entry["port"])


def rules(overlay: str, direction: str, labels: Mapping[str, str]) -> Iterator[Object]:
    """The rules that hold for a pod; there must be a policy, or everything would be allowed."""
    policies = [p["spec"] for p in objects(overlay, "NetworkPolicy").values()]
    holding = [
        policy
        for policy in policies
        if direction.capitalize() in policy["policyTypes"]
        and selects(policy["podSelector"], labels)
    ]
    assert holding
    for policy in holding:
        yield from policy.get(direction, ())


def may_enter(overlay: str, name: str, port: int, other: Mapping[str, str]) -> bool:
    return any(
        any(is_port(entry, port) for entry in rule["ports"])
        and ("from" not in rule or any(is_peer(peer, other) for peer in rule["from"]))
        for rule in rules(overlay, "ingress", pod(overlay, name)["metadata"]["labels"])
    )


def may_leave(overlay: str, name: str, port: int, other: Mapping[str, str]) -> bool:
    return any(
        any(is_port(entry, port) for entry in rule["ports"])
        and any(is_peer(peer, other) for peer in rule["to"])
        for rule in rules(overlay, "egress", pod(overlay, name)["metadata"]["labels"])
    )


@each_overlay
def test_only_the_api_port_is_open_to_all(overlay: str) -> None:
    for other in (STRANGER, {"ip": "203.0.113.7"}, {"ip": "10.0.0.7"}):
        reached = {
            (name, port)
            for name, port in product(PODS, (6379, 8000, 9400))
            if may_enter(overlay, name, port, other)
        }
        assert reached == {("api", 8000)}


@each_overlay
def test_only_own_pods_reach_redis(overlay: str) -> None:
    redis = pod(overlay, "redis")["metadata"]["labels"]
    for name in PROGRAMS:
        assert may_enter(overlay, "redis", 6379, pod(overlay, name)["metadata"]["labels"])
        assert may_leave(overlay, name, 6379, redis)
    assert not may_enter(overlay, "redis", 6379, PROMETHEUS)
    assert not may_enter(overlay, "redis", 6379, redis)
    assert not list(rules(overlay, "egress", redis))


@each_overlay
def test_prometheus_reaches_only_metrics_ports(overlay: str) -> None:
    for name in PROGRAMS:
        assert may_enter(overlay, name, 9400, PROMETHEUS)
        assert not may_enter(overlay, name, 9400, pod(overlay, "api")["metadata"]["labels"])
        assert may_leave(overlay, name, 53, {"namespace": "kube-system"})


@each_overlay
def test_only_webhooks_have_egress_to_the_internet(overlay: str) -> None:
    near = (
        *("10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254"),
        *("172.20.0.1", "192.168.1.1", "fd00::1", "::1"),
    )
    for name, address in product(PROGRAMS, ["203.0.113.7", "2606:4700::1", *near]):
        out = name == "webhooks" and address not in near
        for port in (443, 8443):
            assert may_leave(overlay, name, port, {"ip": address}) == out
        for port in (25, 80):
            assert not may_leave(overlay, name, port, {"ip": address})
