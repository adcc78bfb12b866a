/**
 * Loads the modules of user actors on a worker.
 *
 * Invariant: every worker that is given the same modules has the same actors in the same order, as envelopes name them by index.
 */
import { type AnyActorDefinition, isActorDefinition } from "../src/actor/define-actor.ts";
import { ShardloomError } from "../src/errors.ts";
import type { ActorTable } from "./actor-router.ts";
import { isVertexProgram, type VertexProgram } from "./graph/vertex-program.ts";

type ModuleLoader = (url: string) => Promise<Record<string, unknown>>;

/** Names and handlers of actors, as a client learns them. */
export function tableOf(definitions: readonly AnyActorDefinition[]): ActorTable {
  return definitions.map(({ name, handlerNames }) => ({ name, handlers: [...handlerNames] }));
}

/** Imports the modules and collects their actors, sorted by name, so that every worker has the same table. */
export async function loadActors(urls: readonly string[], load: ModuleLoader): Promise<AnyActorDefinition[]> {
  const byName = new Map<string, AnyActorDefinition>();
  for (const url of urls) {
    const exported = await loadModule(url, load);
    const found = Object.values(exported).filter(isActorDefinition);
    if (found.length === 0 && !Object.values(exported).some(isVertexProgram)) {
      throw new ShardloomError(
        "ERR_MODULE_NOT_LOADED",
        `Cannot load actors as ${url} must export one made with defineActor, or a vertex program`,
        { details: { url } },
      );
    }
    for (const definition of found) {
      const other = byName.get(definition.name);
      if (other !== undefined && other !== definition) throw usedTwice("actors", url, definition.name);
      byName.set(definition.name, definition);
    }
  }
  return [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Imports the modules and collects their vertex programs, by name. @throws {ShardloomError} `ERR_INVALID_ARGUMENT` when two have one name. */
export async function loadPrograms(urls: readonly string[], load: ModuleLoader): Promise<Map<string, VertexProgram>> {
  const programs = new Map<string, VertexProgram>();
  for (const url of urls)
    for (const value of Object.values(await loadModule(url, load))) {
      if (!isVertexProgram(value)) continue;
      const other = programs.get(value.name);
      if (other !== undefined && other !== value) throw usedTwice("vertex programs", url, value.name);
      programs.set(value.name, value);
    }
  return programs;
}

function usedTwice(what: string, url: string, name: string): ShardloomError {
  return new ShardloomError(
    "ERR_INVALID_ARGUMENT",
    `Cannot load ${what} as the name ${name} must be unique: ${url} uses it again`,
    { details: { url, name } },
  );
}

async function loadModule(url: string, load: ModuleLoader): Promise<Record<string, unknown>> {
  try {
    return await load(url);
  } catch (error) {
    throw new ShardloomError(
      "ERR_MODULE_NOT_LOADED",
      `Cannot load actor module ${url}: ${error instanceof Error ? error.message : String(error)}`,
      {
        details: { url },
        cause: error,
      },
    );
  }
}
