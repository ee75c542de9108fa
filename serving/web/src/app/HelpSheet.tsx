import { Dialog } from "./Dialog";

const KEYS: [string, [string, string][]][] = [
  [
    "Anywhere",
    [
      ["?", "This sheet"],
      ["/", "Write"],
      ["Ctrl K", "Search conversations"],
      ["Ctrl Shift O", "New conversation"],
      ["Esc", "Stop the answer, close what is open"],
    ],
  ],
  [
    "Writing",
    [
      ["Enter", "Send"],
      ["Shift Enter", "New line"],
      ["Esc", "Leave the field: the single keys work then"],
      ["↑", "In an empty field: edit the last question"],
    ],
  ],
  [
    "The last answer",
    [
      ["+  −", "Good, bad; again to take it back"],
      ["R", "Another answer in its place"],
      ["S", "Another answer side by side"],
      ["E", "Edit it into what it should have been"],
      ["Ctrl Enter", "Save what it should have been"],
    ],
  ],
  [
    "Side by side",
    [
      ["A  B", "This one is better"],
      ["T", "They are equally good"],
      ["N", "Neither is good"],
      ["U", "Take the vote back"],
    ],
  ],
  [
    "Ranking",
    [
      ["↑ ↓", "From answer to answer"],
      ["Space", "Lift, then arrows move it, Space puts it down"],
      ["=", "As good as the one above"],
      ["1 – 8", "Put it at this place"],
      ["0", "Take it off its place"],
      ["E", "Open or fold its text"],
      ["Ctrl Enter", "Submit the ranking"],
    ],
  ],
];

export function HelpSheet({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard shortcuts" onClose={onClose} wide>
      <div className="keys">
        {KEYS.map(([where, keys]) => (
          <section key={where}>
            <h3>{where}</h3>
            <dl>
              {keys.map(([key, what]) => (
                <div key={key}>
                  <dt>
                    <kbd>{key}</kbd>
                  </dt>
                  <dd>{what}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </Dialog>
  );
}
