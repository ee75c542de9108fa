export const Raters = () => <p>Not built yet.</p>;
