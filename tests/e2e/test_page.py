"""The page in a real browser before the real engine."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

from tests.e2e.conftest import Service
from tests.web.conftest import CHROMIUM, QUIET, find_chromium

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture
def page(service: Service) -> Iterator[Any]:
    find_chromium()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(base_url=service.url)
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def sign_in(page: Any, key: str) -> None:
    page.goto("/")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()


def test_a_person_signs_in_chats_and_rates(service: Service, page: Any) -> None:
    sign_in(page, service.key)
    page.get_by_label("Message").fill("What is the capital of France?")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Good answer").click()
    page.get_by_text("Saved").first.wait_for()
    [newest] = service.get("/v1/feedback?type=rating&order=desc&limit=1")["data"]
    told = service.get(f"/v1/chat/completions/{newest['judgement']['completion_id'].partition(':')[0]}")
    answer = page.get_by_role("article", name="Answer").inner_text()
    assert newest["judgement"]["value"] == 1 and answer.strip()
    assert told["choices"][0]["message"]["content"].split()[0] in answer


def test_an_operator_sees_what_serves_and_what_it_says(service: Service, page: Any) -> None:
    sign_in(page, service.key)
    page.get_by_role("link", name="Console").click()
    figures = page.locator(".c-figures > div")
    figures.filter(has_text="engine, stable").get_by_text("policy-v").wait_for()
    figures.filter(has_text="workers").get_by_text("alive").wait_for()
    page.goto("/console/policies/0-0")
    answers = service.get("/v1/policies/policy-v0/diff?with=policy-v0")["answers"]
    assert len(answers) == 8 and all(each["left"] == each["right"] for each in answers)
    page.get_by_text(answers[0]["prompt"]).first.wait_for()
    assert any(" the " in each["left"] for each in answers), "English, by a model that knows it"
