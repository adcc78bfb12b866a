/** The suite of clusters, on real threads: the same checks as sim-cluster.test.ts. */
import { afterAll, beforeAll, describe, it } from "vitest";
import { Cluster } from "../../src/index.ts";
import { CLUSTER_CHECKS, tagOf } from "./cluster.ts";

describe("a real cluster of 2 workers", () => {
  let cluster: Cluster;
  beforeAll(async () => {
    cluster = await Cluster.start({
      workers: 2,
      replicationFactor: 2,
      actors: [new URL("./cluster-actors.js", import.meta.url)],
    });
  });
  afterAll(() => cluster.close());

  it.each(Object.entries(CLUSTER_CHECKS))("%s", (name, check) => check.run(cluster, tagOf(name, 0)));
});
