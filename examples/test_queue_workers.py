"""Greenthreads that share a queue, as a ``unittest.TestCase``."""

from __future__ import annotations

import unittest

import eventlet
from eventlet.queue import Queue


class QueueWorkersTest(unittest.TestCase):
    def setUp(self) -> None:
        self.jobs: Queue = Queue()
        self.results: Queue = Queue()
        self.workers = [eventlet.spawn(self.work) for _ in range(3)]

    def tearDown(self) -> None:
        for worker in self.workers:
            worker.kill()

    def work(self) -> None:
        while True:
            job = self.jobs.get()
            eventlet.sleep(0)
            self.results.put(job * job)
            self.jobs.task_done()

    def test_every_job_is_done_once(self) -> None:
        for job in range(20):
            self.jobs.put(job)
        self.jobs.join()

        results = sorted(self.results.get() for _ in range(20))
        assert results == [job * job for job in range(20)]

    def test_workers_wait_for_late_jobs(self) -> None:
        for count in (1, 5):
            with self.subTest(count=count):
                eventlet.spawn_after(0.01, self.jobs.put, count)
                assert self.results.get(timeout=5) == count * count
