/**
 * Example: a Fastify server that embeds a cluster. The event loop answers HTTP; the searches run on the workers.
 *
 * `spinLimitUs: 0`: under load workers, event loop and clients share the cores, so a thread that polls takes them from one
 * that works. `workerNice: 5`: the event loop has work of microseconds, the workers of milliseconds, so it goes first.
 */
import fastify, { type FastifyInstance } from "fastify";
import { Cluster, STATUS, type VectorDocument } from "../../src/index.ts";

/** Rows of a shard up to which it goes without an index: every search here is exact, so none is built. */
const ALWAYS_SCAN = 2 ** 30;

export interface SearchServerOptions {
  readonly documents: Iterable<VectorDocument>;
  readonly dimensions: number;
  readonly workers?: number;
}

/** `GET /similar/:id?k=10` answers the documents nearest to a stored one. `close()` stops server and cluster. */
export async function createSearchServer(options: SearchServerOptions): Promise<FastifyInstance> {
  const { documents, dimensions, workers = 2 } = options;
  const cluster = await Cluster.start({ workers, spinLimitUs: 0, workerNice: 5 });
  const docs = await cluster.vectors("docs", { dimensions, metric: "cosine", scanRows: ALWAYS_SCAN });
  await docs.upsert(documents);

  const app = fastify();
  app.addHook("onClose", () => cluster.close());
  app.get<{ Params: { id: string }; Querystring: { k?: number } }>("/similar/:id", async (request, reply) => {
    const { id } = request.params;
    const vector = new Float32Array(dimensions);
    // One-sided: read from shared memory, no message to the shard.
    if (docs.reader().get(id, vector) !== STATUS.SUCCESS) return reply.code(404).send({ error: `no document ${id}` });
    const { hits } = await docs.search(vector, { k: Number(request.query.k ?? 10), exact: true, timeoutMs: 2_000 });
    return hits.map(({ id, score }) => ({ id, score }));
  });
  return app;
}
