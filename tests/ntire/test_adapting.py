import ast
import textwrap

import pytest

from earn_plugin.ntire.adapting import adapted


def check(before: str, after: str) -> None:
    assert adapted(textwrap.dedent(before)) == textwrap.dedent(after)


def test_what_only_training_needs_goes():
    check(
        """
        def f(x):
            if torch.is_grad_enabled():  # saves memory
                return g(x)
            return h(x)
        """,
        """
        def f(x):
            return h(x)
        """,
    )


def test_a_condition_that_asks_for_more_is_as_false():
    check(
        """
        def f(x):
            y = g(x) if torch.is_grad_enabled() and x.requires_grad else x
            if torch.is_grad_enabled() and x.any() and y:
                return g(y)
            return y
        """,
        """
        def f(x):
            y = x
            return y
        """,
    )


def test_the_other_branch_takes_its_place_with_its_comments():
    check(
        """
        class A:
            def f(self, x):
                for y in x:
                    if torch.is_grad_enabled():
                        x = g(y)
                    else:
                        # some at a time
                        x = h(y)
                        x = x + 'é'
                return x
        """,
        """
        class A:
            def f(self, x):
                for y in x:
                    # some at a time
                    x = h(y)
                    x = x + 'é'
                return x
        """,
    )


def test_a_block_is_never_left_empty():
    check(
        """
        def f(x):
            if torch.is_grad_enabled():
                x.requires_grad_()
        """,
        """
        def f(x):
            pass
        """,
    )


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ('y = a(x) if torch.is_grad_enabled() else b(x)[0]', 'y = b(x)[0]'),
        ('y = 2 * (a if torch.is_grad_enabled() else b + c)', 'y = 2 * ((b + c))'),
        ('for a, b in zip(x, y, strict=True): pass', 'for a, b in zip(x, y): pass'),
        ('y = zip(*x, strict=len(x) > 1)', 'y = zip(*x)'),
        ('y = F.scaled_dot_product_attention(q, k, v)', 'y = scaled_dot_product_attention(q, k, v)'),
        ('y = torch.nn.functional.scaled_dot_product_attention(q, k, v)', 'y = scaled_dot_product_attention(q, k, v)'),
        ('y = self.scaled_dot_product_attention(q)', 'y = self.scaled_dot_product_attention(q)'),
        ('@ARCH_REGISTRY.register()\nclass A: pass', 'class A: pass'),
        ("@ARCH_REGISTRY.register(\n    suffix='x'\n)\n@final\nclass A: pass", '@final\nclass A: pass'),
        ('y = [a if torch.is_grad_enabled() else b for b in zip(x, z, strict=True)]', 'y = [b for b in zip(x, z)]'),
    ],
)
def test_expressions(before, after):
    assert adapted(before + '\n') == after + '\n'


def test_a_registry_by_another_name():
    text = 'from basicsr.utils.registry import ARCH_REGISTRY as REG\n'
    assert adapted(text + '@REG.register()\nclass A: pass\n') == text + 'class A: pass\n'
    assert adapted('@other.register()\nclass A: pass\n') == '@other.register()\nclass A: pass\n'


@pytest.mark.parametrize(
    'text',
    [
        'if x and torch.is_grad_enabled():\n    y = 1\n',
        'if torch.is_grad_enabled():\n    y = 1\nelif x:\n    y = 2\nelse:\n    y = 3\n',
        'y = zip(x, z)\n',
    ],
)
def test_what_is_not_understood_stays(text):
    assert adapted(text) == text
    ast.parse(text)
