/**
 * The little of a browser that the timeline's page uses, as types: the project is compiled for Node, without the DOM's library.
 *
 * Invariant: types only; names and shapes are the standard's.
 */

export interface Canvas2d {
  fillStyle: string;
  strokeStyle: string;
  globalAlpha: number;
  lineWidth: number;
  font: string;
  textBaseline: string;
  textAlign: string;
  setTransform(a: number, b: number, c: number, d: number, e: number, f: number): void;
  clearRect(x: number, y: number, width: number, height: number): void;
  fillRect(x: number, y: number, width: number, height: number): void;
  strokeRect(x: number, y: number, width: number, height: number): void;
  beginPath(): void;
  moveTo(x: number, y: number): void;
  lineTo(x: number, y: number): void;
  rect(x: number, y: number, width: number, height: number): void;
  closePath(): void;
  clip(): void;
  save(): void;
  restore(): void;
  stroke(): void;
  fill(): void;
  fillText(text: string, x: number, y: number, maxWidth?: number): void;
  measureText(text: string): { readonly width: number };
  setLineDash(segments: readonly number[]): void;
}

export interface PageEvent {
  readonly clientX: number;
  readonly clientY: number;
  readonly deltaX: number;
  readonly deltaY: number;
  readonly deltaMode: number;
  readonly shiftKey: boolean;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  readonly key: string;
  readonly pointerId: number;
  readonly target: unknown;
  preventDefault(): void;
}

export interface PageElement {
  textContent: string | null;
  className: string;
  hidden: boolean;
  checked: boolean;
  type: string;
  title: string;
  width: number;
  height: number;
  readonly clientWidth: number;
  readonly clientHeight: number;
  readonly offsetWidth: number;
  readonly offsetHeight: number;
  readonly style: Record<string, string>;
  readonly dataset: Record<string, string>;
  append(...children: (PageElement | string)[]): void;
  addEventListener(type: string, listener: (event: PageEvent) => void, options?: { passive: boolean }): void;
  getBoundingClientRect(): { readonly left: number; readonly top: number };
  getContext(kind: "2d"): Canvas2d;
  setPointerCapture(id: number): void;
  focus(): void;
}

export interface Page {
  readonly document: {
    readonly documentElement: PageElement;
    getElementById(id: string): PageElement;
    createElement(tag: string): PageElement;
  };
  readonly window: {
    readonly devicePixelRatio: number;
    readonly innerWidth: number;
    readonly innerHeight: number;
    addEventListener(type: string, listener: (event: PageEvent) => void): void;
    requestAnimationFrame(callback: () => void): void;
    getComputedStyle(element: PageElement): { getPropertyValue(name: string): string };
    matchMedia(query: string): {
      readonly matches: boolean;
      addEventListener(type: string, listener: () => void): void;
    };
  };
}
