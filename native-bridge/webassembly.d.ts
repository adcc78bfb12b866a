/**
 * The part of the WebAssembly JavaScript interface that Shardloom uses. It comes with lib "DOM" only, which this project
 * leaves out so that no browser global is typed by accident; @types/node does not declare it.
 */
declare global {
  namespace WebAssembly {
    interface MemoryDescriptor {
      initial: number;
      maximum?: number;
      shared?: boolean;
    }
    interface Memory {
      readonly buffer: ArrayBuffer | SharedArrayBuffer;
      grow(delta: number): number;
    }
    var Memory: { prototype: Memory; new (descriptor: MemoryDescriptor): Memory };
    interface Module {}
    var Module: { prototype: Module; new (bytes: ArrayBufferView | ArrayBuffer): Module };
    interface Instance {
      readonly exports: Readonly<Record<string, unknown>>;
    }
    function validate(bytes: ArrayBufferView | ArrayBuffer): boolean;
    var Instance: {
      prototype: Instance;
      new (module: Module, imports?: Readonly<Record<string, Readonly<Record<string, unknown>>>>): Instance;
    };
  }
}

export {};
