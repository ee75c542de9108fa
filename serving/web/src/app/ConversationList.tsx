import { useEffect, useState, type RefObject } from "react";
import { explain, type Conversation } from "../api/client";
import { ROUNDS_BEGIN_AGAIN } from "../rating";
import { Confirm } from "./Dialog";
import { exportConversation } from "./exporting";
import { MoreIcon } from "./icons";
import { Link } from "./Link";
import { Menu } from "./Menu";
import { chatPath } from "./route";
import type { Conversations } from "./useConversations";

interface ConversationListProps {
  list: Conversations;
  current: string | null;
  /** What is being answered, by conversation: the server lists one only once its first answer is there. */
  writing: ReadonlyMap<string, string>;
  /** Likewise what is asked of several answers, until one of them is chosen. */
  judged: ReadonlyMap<string, string>;
  searchField: RefObject<HTMLInputElement | null>;
  onOpen: () => void;
  onDeleted: (id: string) => void;
}

export function ConversationList(props: ConversationListProps) {
  const { list, current, writing, judged, searchField, onOpen, onDeleted } = props;
  const [search, setSearch] = useState("");
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const searched = useSearch(list, words.join(" "));
  const known = new Set(list.items.map((item) => item.id));
  const all = words.length ? [...list.items, ...list.found.filter((item) => !known.has(item.id))] : list.items;
  const begun = [...new Map([...judged, ...writing])].filter(([id]) => !words.length && !known.has(id));
  const found = all.filter((item) => words.every((word) => item.title.toLowerCase().includes(word)));
  return (
    <nav aria-label="Conversations" className="conversations">
      <input
        ref={searchField}
        type="search"
        placeholder="Search"
        aria-label="Search conversations by title"
        value={search}
        onChange={(event) => setSearch(event.target.value)}
      />
      {list.problem !== null && (
        <p className="failure small" role="alert">
          {explain(list.problem)}{" "}
          <button type="button" className="link" onClick={() => void list.refresh()}>
            Try again
          </button>
        </p>
      )}
      <div role="status">
        {list.aftermath.length > 0 && (
          <p className="small aftermath">
            Deleted. {list.aftermath.join(" ")}{" "}
            <button type="button" className="link" onClick={list.haveRead}>
              OK
            </button>
          </p>
        )}
      </div>
      <ul>
        {begun.map(([id, question]) => (
          <li key={id} className={id === current ? "current" : undefined}>
            <Entry id={id} title={question} current={id === current} writing={writing.has(id)} onOpen={onOpen} />
          </li>
        ))}
        {found.map((item) => (
          <Item
            key={item.id}
            item={item}
            current={item.id === current}
            writing={writing.has(item.id)}
            list={list}
            onOpen={onOpen}
            onDeleted={onDeleted}
          />
        ))}
      </ul>
      {found.length + begun.length === 0 && (
        <p className="muted small nothing">
          {!words.length ? "No conversations yet." : searched ? "No title has these words." : "Searching…"}
        </p>
      )}
      {list.hasMore && !words.length && (
        <button type="button" className="link more" onClick={() => void list.more()}>
          Older conversations
        </button>
      )}
    </nav>
  );
}

const PAUSE_MS = 200;

/** Asks the server once one has stopped typing: most conversations are not loaded. Whether it has answered. */
function useSearch({ search }: Conversations, words: string): boolean {
  const [answered, setAnswered] = useState("");
  useEffect(() => {
    if (!words) return;
    const aborter = new AbortController();
    const ask = () => void search(words, aborter.signal).then(() => aborter.signal.aborted || setAnswered(words));
    const timer = setTimeout(ask, PAUSE_MS);
    return () => {
      clearTimeout(timer);
      aborter.abort();
    };
  }, [search, words]);
  return answered === words;
}

interface EntryProps {
  id: string;
  title: string;
  current: boolean;
  writing: boolean;
  onOpen: () => void;
}

function Entry({ id, title, current, writing, onOpen }: EntryProps) {
  return (
    <Link to={chatPath(id)} aria-current={current ? "page" : undefined} onOpen={onOpen}>
      {writing && <span className="dot" role="img" aria-label="answering" />}
      <span className="title">{title}</span>
    </Link>
  );
}

interface ItemProps {
  item: Conversation;
  current: boolean;
  writing: boolean;
  list: Conversations;
  onOpen: () => void;
  onDeleted: (id: string) => void;
}

function Item({ item, current, writing, list, onOpen, onDeleted }: ItemProps) {
  const [doing, setDoing] = useState<"menu" | "rename" | "delete" | null>(null);
  if (doing === "rename") {
    return (
      <li>
        <Rename
          title={item.title}
          onDone={(title) => {
            setDoing(null);
            if (title && title !== item.title) void list.rename(item.id, title);
          }}
        />
      </li>
    );
  }
  const save = (as: "json" | "markdown") => {
    setDoing(null);
    void list.guarded(() => exportConversation(item.id, item.title, as));
  };
  const remove = async () => {
    if (await list.remove(item.id)) onDeleted(item.id);
  };
  return (
    <li className={current ? "current" : undefined}>
      <Entry id={item.id} title={item.title || "Untitled"} current={current} writing={writing} onOpen={onOpen} />
      <button
        type="button"
        className="icon"
        aria-label={`More for ${item.title}`}
        aria-expanded={doing === "menu"}
        onClick={() => setDoing(doing === "menu" ? null : "menu")}
      >
        <MoreIcon />
      </button>
      {doing === "menu" && (
        <Menu onClose={() => setDoing(null)}>
          <button type="button" onClick={() => setDoing("rename")}>
            Rename
          </button>
          <button type="button" onClick={() => save("markdown")}>
            Export as Markdown
          </button>
          <button type="button" onClick={() => save("json")}>
            Export as JSON
          </button>
          <button type="button" className="danger" onClick={() => setDoing("delete")}>
            Delete…
          </button>
        </Menu>
      )}
      {doing === "delete" && (
        <Confirm title="Delete this conversation?" action="Delete" onConfirm={remove} onClose={() => setDoing(null)}>
          <p>
            “{item.title}” goes with all its branches and all that was said of its answers. Policies that have learned
            from it stay as they are. {ROUNDS_BEGIN_AGAIN}
          </p>
        </Confirm>
      )}
    </li>
  );
}

function Rename({ title, onDone }: { title: string; onDone: (title: string | null) => void }) {
  const [value, setValue] = useState(title);
  return (
    <form
      className="rename"
      onSubmit={(event) => {
        event.preventDefault();
        onDone(value.trim());
      }}
    >
      <input
        aria-label="Title"
        maxLength={256}
        autoFocus
        value={value}
        onFocus={(event) => event.target.select()}
        onChange={(event) => setValue(event.target.value)}
        onBlur={() => onDone(value.trim())}
        onKeyDown={(event) => {
          if (event.key === "Escape") {
            event.stopPropagation();
            onDone(null);
          }
        }}
      />
    </form>
  );
}
