import type { ReactNode } from "react";

const icon = (paths: ReactNode) =>
  function Icon() {
    return (
      <svg className="glyph" viewBox="0 0 20 20" aria-hidden="true">
        {paths}
      </svg>
    );
  };

export const MenuIcon = icon(<path d="M3 5.5h14M3 10h14M3 14.5h14" />);
export const PlusIcon = icon(<path d="M10 4v12M4 10h12" />);
export const CloseIcon = icon(<path d="m5 5 10 10M15 5 5 15" />);
export const CopyIcon = icon(<path d="M7.5 7.5h9v9h-9zM12.5 7.5v-4h-9v9h4" />);
export const CheckIcon = icon(<path d="m4 10.5 4 4 8-9" />);
export const AgainIcon = icon(<path d="M16 10a6 6 0 1 1-1.8-4.3L16 7.5M16 3.5v4h-4" />);
export const PenIcon = icon(<path d="M4 16h3l8.5-8.5-3-3L4 13zM11 6l3 3" />);
export const SendIcon = icon(<path d="M10 16V4M5 9l5-5 5 5" />);
export const StopIcon = icon(<rect x="5.5" y="5.5" width="9" height="9" rx="1.5" fill="currentColor" stroke="none" />);
export const MoreIcon = icon(
  <>
    <circle cx="4.5" cy="10" r="1.2" fill="currentColor" />
    <circle cx="10" cy="10" r="1.2" fill="currentColor" />
    <circle cx="15.5" cy="10" r="1.2" fill="currentColor" />
  </>,
);
export const LeftIcon = icon(<path d="m12 5-5 5 5 5" />);
export const RightIcon = icon(<path d="m8 5 5 5-5 5" />);
export const DownIcon = icon(<path d="M10 4v12M5 11l5 5 5-5" />);
export const OpenIcon = icon(<path d="m5 8 5 5 5-5" />);
export const SidesIcon = icon(<path d="M3.5 4.5h5.5v11H3.5zM11 4.5h5.5v11H11z" />);
export const FlagIcon = icon(<path d="M5 17V3.5M5 4h9.5l-2 3.5 2 3.5H5" />);
export const RankIcon = icon(<path d="M8 5h9M8 10h9M8 15h9M3.5 4.5v11M2 14l1.5 1.5L5 14" />);
