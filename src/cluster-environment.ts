/**
 * What a cluster stands on outside of simulated worlds: real threads, files, and the network when it is one node of several.
 *
 * Invariant: what was opened for a cluster that could not be started is closed again. The network, and NATS, are loaded only where they are used.
 */
import { lmdbDocuments } from "./cluster-documents.ts";
import type { openNatsNode } from "./cluster-nats.ts";
import { type ClusterOptions, START_TIMEOUT_MS } from "./cluster-options.ts";
import type { ClusterEnvironment } from "./cluster-types.ts";
import { realPlatform } from "./cluster-workers.ts";

/** Starts a cluster on what its options name. */
export async function startReal<T>(
  options: ClusterOptions,
  start: (environment: ClusterEnvironment) => Promise<T>,
): Promise<T> {
  const platform = realPlatform();
  const { node, directory, nats } = options;
  const own = { platform, documents: lmdbDocuments, openNats, onWaiting: nats?.onWaiting };
  if (node === undefined) return start(own);
  const { openNode } = await import("./cluster-wire.ts");
  const { startTimeoutMs = START_TIMEOUT_MS } = options;
  const nodes = await openNode(node, platform.runtime, (directory ?? nats) !== undefined, startTimeoutMs);
  try {
    return await start({ ...own, nodes });
  } catch (error) {
    nodes.transport.close();
    throw error;
  }
}

const openNats: typeof openNatsNode = async (...place) => (await import("./cluster-nats.ts")).openNatsNode(...place);
