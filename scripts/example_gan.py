"""An adversarial pair on handwritten digits for the example store, right and with a bug."""

from __future__ import annotations

import keras
import tensorflow as tf

PIXELS = 64
MARGIN = 0.3
LEARNING_RATE = 2e-3


def mirror(name: str) -> keras.Model:
    """From 64 numbers to 64 pixels: both adversaries are built so.

    Args:
        name: what to call it.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((PIXELS,)),
            layers.Dense(24, activation="tanh", name="code"),
            layers.Dense(PIXELS, activation="sigmoid", name="pixels"),
        ],
        name=name,
    )


class DigitGan(keras.Model):  # type: ignore[misc]
    """An energy-based GAN: the critic redraws pictures, and redraws forged ones badly.

    Two optimizers, one for each network, and two tapes in a step.

    Args:
        mixed_up: plant the bug: the generator's optimizer is given the critic's gradients, which
            have the same shapes.

    Source: Zhao, Mathieu, LeCun, "Energy-based Generative Adversarial Networks" (2017), with a
    softplus for the hinge.
    """

    def __init__(self, mixed_up: bool) -> None:
        super().__init__(name="digit_gan")
        self.mixed_up = mixed_up
        self.generator = mirror("generator")
        self.critic = mirror("critic")
        self.for_generator = keras.optimizers.Adam(LEARNING_RATE)
        self.built = True

    def call(self, noise: tf.Tensor) -> tf.Tensor:
        """Forge pictures."""
        return self.generator(noise)

    def energy(self, pictures: tf.Tensor) -> tf.Tensor:
        """How badly the critic redraws pictures, on the mean."""
        return tf.reduce_mean(tf.square(self.critic(pictures) - pictures))

    def train_step(self, pictures: tf.Tensor) -> dict[str, tf.Tensor]:
        """A step of the critic, then one of the generator."""
        noise = tf.random.normal(tf.shape(pictures))
        with tf.GradientTape() as tape:
            doubt = self.energy(self.generator(noise))
            critic_loss = self.energy(pictures) + tf.nn.softplus((MARGIN - doubt) / MARGIN)
        of_critic = tape.gradient(critic_loss, self.critic.trainable_variables)
        self.optimizer.apply_gradients(zip(of_critic, self.critic.trainable_variables, strict=True))
        with tf.GradientTape() as tape:
            generator_loss = self.energy(self.generator(noise))
        gradients = tape.gradient(generator_loss, self.generator.trainable_variables)
        if self.mixed_up:
            gradients = of_critic
        self.for_generator.apply_gradients(
            zip(gradients, self.generator.trainable_variables, strict=True)
        )
        return {"loss": generator_loss, "critic_loss": critic_loss}


def gan(mixed_up: bool) -> keras.Model:
    """A compiled GAN. The compiled optimizer is the critic's."""
    model = DigitGan(mixed_up)
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE))
    return model
