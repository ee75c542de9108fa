import { cleanup, configure } from "@testing-library/react";
import { afterEach } from "vitest";

// For machines that are slow and busy: what is waited for comes at once elsewhere.
configure({ asyncUtilTimeout: 10_000 });
afterEach(cleanup);

/** jsdom lays nothing out: everything is as wide as this. */
globalThis.ResizeObserver ??= class {
  constructor(private readonly seen: ResizeObserverCallback) {}
  observe(): void {
    this.seen([{ contentRect: { width: 640 } } as ResizeObserverEntry], this);
  }
  unobserve(): void {}
  disconnect(): void {}
};
Element.prototype.scrollIntoView ??= () => undefined;
