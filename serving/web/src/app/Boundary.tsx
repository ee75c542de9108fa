import { Component, type ReactNode } from "react";

interface BoundaryProps {
  /** What is drawn: something else is tried anew. */
  of: string;
  fallback: ReactNode;
  children: ReactNode;
}

/** What cannot be drawn takes its own place with it, not the page. */
export class Boundary extends Component<BoundaryProps, { failed: boolean }> {
  override state = { failed: false };

  static getDerivedStateFromError(): { failed: boolean } {
    return { failed: true };
  }

  override componentDidUpdate(before: BoundaryProps): void {
    if (this.state.failed && before.of !== this.props.of) this.setState({ failed: false });
  }

  override render(): ReactNode {
    return this.state.failed ? this.props.fallback : this.props.children;
  }
}
