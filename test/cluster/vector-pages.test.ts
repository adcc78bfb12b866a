/** Vector searches page by page: each document once, in the order of one answer, whatever the sizes of the pages. */
import { expect, it } from "vitest";
import type { SearchOptions } from "../../src/index.ts";
import { startTestCluster } from "../support/cluster.ts";
import { codeOf } from "../support/copies.ts";

const COUNT = 300;

it("pages by cursor are the whole ranking, also with ties, a filter, and shards that hold nothing near", async () => {
  await using cluster = await startTestCluster({ workers: 3, replicationFactor: 2 });
  const docs = await cluster.vectors("docs", { dimensions: 2, metric: "l2" });
  const query = [0, 0];
  // Ten at each distance; names and numbers, which rank one behind the other.
  await docs.upsert(
    Array.from({ length: COUNT }, (_, at) => ({
      id: at % 2 === 0 ? at : `name ${at}`,
      vector: [Math.floor(at / 10), 0],
      payload: { third: at % 3 === 0 },
    })),
    { acks: "all" },
  );
  const walk = async (sizes: readonly number[], options: SearchOptions): Promise<(string | number)[]> => {
    const ids: (string | number)[] = [];
    let after: string | undefined;
    for (let page = 0; ; page++) {
      const k = sizes[page % sizes.length] as number;
      const found = await docs.search(query, { ...options, k, ...(after === undefined ? {} : { after }) });
      ids.push(...found.hits.map(({ id }) => id));
      after = found.cursor;
      if (after === undefined) return ids;
      expect(found.hits).toHaveLength(k);
    }
  };
  const searches: readonly SearchOptions[] = [
    { exact: true },
    { exact: true, filter: { third: true } },
    { consistency: "eventual", strategy: "round-robin" },
  ];
  for (const options of searches) {
    const whole = (await docs.search(query, { ...options, k: COUNT + 1 })).hits.map(({ id }) => id);
    expect(await walk([7, 1, 40], options), JSON.stringify(options)).toEqual(whole);
    expect(await walk([COUNT], options)).toEqual(whole);
  }
  const first = await docs.search(query, { k: 15, exact: true });
  const after = first.cursor as string;
  // Where the last page ended may be gone meanwhile, and what lies before it may be new.
  await docs.delete(first.hits.at(-1)?.id as string | number);
  await docs.upsert({ id: "new", vector: [0, 0] });
  const { hits, explain } = await docs.search(query, { k: 20, exact: true, after, explain: true });
  expect(hits.map(({ score }) => score)).toEqual([
    ...new Array(5).fill(1),
    ...new Array(10).fill(4),
    ...new Array(5).fill(9),
  ]);
  expect(hits.map(({ id }) => id)).not.toContain("new");
  expect(explain?.outcomes, "twice as many as one page were enough").toHaveLength(3);
  const refused = async (options: object, vector = query): Promise<unknown> =>
    docs.search(vector, { k: 15, ...options }).then(() => "found", codeOf);
  expect(await refused({ after, includeVector: true, exact: false })).toBe("found");
  for (const wrong of ["", "nonsense", `${after}A`, 7, null, after.toLowerCase()])
    expect(await refused({ after: wrong }), String(wrong)).toBe("ERR_INVALID_ARGUMENT");
  expect(await refused({ after, filter: { third: true } }), "of another filter").toBe("ERR_INVALID_ARGUMENT");
  expect(await refused({ after }, [0, 1]), "of another query").toBe("ERR_INVALID_ARGUMENT");
  const images = await cluster.vectors("images", { dimensions: 2, metric: "l2", strategy: "one-sided" });
  const onImages = images.search(query, { after });
  expect(await onImages.then(() => "found", codeOf), "by another strategy").toBe("ERR_INVALID_ARGUMENT");
});
