/** Starts a cluster on a directory, opens a collection, says so, and lives until it is killed. */
import { Cluster } from "../../src/index.ts";

const [directory = ""] = process.argv.slice(2);
const cluster = await Cluster.start({ workers: 2, memoryBytes: 64 * 1024 * 1024, directory });
await cluster.vectors("docs", { dimensions: 4 });
process.stdout.write("serving\n");
