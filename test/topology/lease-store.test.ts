/** The lease stores that need no server pass the suite of their interface: in memory, kept in a directory, and over the stand-in for NATS. */
import { describe } from "vitest";
import { SimDisk } from "../../src/sim/disk.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import { createNatsLeaseStore } from "../../src/sim/lease-store.ts";
import { SimNats } from "../../src/sim/nats.ts";
import { openKeptLeaseStore } from "../../src/topology/kept-lease-store.ts";
import { createLocalLeaseStore } from "../../src/topology/lease-store.ts";
import { leaseStoreConformance } from "../conformance/lease-store.ts";
import { SteppedLoop } from "../sim/stepped-loop.ts";

describe("the local lease store", () => {
  leaseStoreConformance(() => {
    const store = createLocalLeaseStore();
    return Promise.resolve({
      store,
      run: (work) => work,
      again: () => Promise.resolve(store),
      keeps: "all",
      close: () => Promise.resolve(),
    });
  });
});

describe("the lease store of a directory", () => {
  leaseStoreConformance(async () => {
    const loop = new SteppedLoop(1);
    const disk = new SimDisk({ node: "n0", loop, faults: createReplayInjector([]) });
    const open = (): ReturnType<typeof openKeptLeaseStore> => {
      disk.crash();
      return openKeptLeaseStore(disk.mount());
    };
    return {
      store: await loop.finish(open()),
      run: (work) => loop.finish(work),
      again: open,
      keeps: "map",
      close: () => Promise.resolve(),
    };
  });
});

describe("the lease store over the stand-in for NATS", () => {
  leaseStoreConformance(() => {
    const loop = new SteppedLoop(1);
    const nats = new SimNats({ loop, faults: createReplayInjector([]) });
    return Promise.resolve({
      store: createNatsLeaseStore(nats.connect("n0")),
      run: (work) => loop.finish(work),
      again: () => Promise.resolve(createNatsLeaseStore(nats.connect("n1"))),
      keeps: "all",
      close: () => Promise.resolve(),
    });
  });
});
