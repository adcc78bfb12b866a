/** Opens documents, says so, and reads them over and over. */
import { parentPort, workerData } from "node:worker_threads";
import { openDocuments } from "../../src/store/documents.ts";
import { CLUSTER } from "./documents-support.ts";

const documents = await openDocuments({ path: workerData as string, clusterId: CLUSTER, shard: 0, readOnly: true });
parentPort?.postMessage("open");
for (;;) for (const { value } of documents.documents()) value.at(0);
