EPOCHS = 5
LR = 0.1

for epoch in range(EPOCHS):
    print(f"epoch {epoch + 1}: val_cosine {1 - LR / (epoch + 2):.4f}", flush=True)
