"""How the workers of one training find each other, without a port that the network can reach.

Ray Train would have torch open its key-value store, which asks nobody for a password, on every interface, also where
Ray itself keeps to 127.0.0.1. Here the first worker opens the socket on its node's own address, and hands it to torch.
"""

import contextlib
import os
import socket
from collections.abc import Iterator

import psutil
import ray
import torch
from ray.train import get_context
from ray.train.backend import Backend
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchConfig
from torch import distributed


class OwnRendezvous(TorchConfig):
    """Leaves torch's process group to `together`; Ray Train does all else."""

    @property
    def backend_cls(self) -> type[Backend]:
        """A backend that prepares nothing."""
        return Backend


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All of Ray Train's workers in one process group of torch: NCCL on GPUs, else gloo. Each must enter this."""
    rank, world_size = get_context().get_world_rank(), get_context().get_world_size()
    host, port, listener = ray.util.get_node_ip_address(), 0, None
    interface = _interface(host)
    if interface is not None:  # else the host's name decides where they listen for each other's gradients
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", interface)
    if rank == 0:
        listener = socket.create_server((host, 0))
        port = listener.getsockname()[1]
    host, port = broadcast_from_rank_zero((host, port))
    store = distributed.TCPStore(
        host,
        port,
        world_size,
        is_master=listener is not None,
        master_listen_fd=None if listener is None else listener.detach(),
    )
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    yield
    distributed.destroy_process_group()  # after an error the others may not answer, and Ray ends the process anyway


def _interface(address: str) -> str | None:
    """The network interface of this machine that has an address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == address for each in addresses):
            return name
    return None
