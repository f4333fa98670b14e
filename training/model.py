"""PyTorch definition of cytomask-t.

A TinyViT-5M SAM (encoder, prompt encoder, mask decoder; key names as in MobileSAM), a slim
UNETR-style decoder for the three instance maps (foreground, centre distance, boundary distance),
a decoder of object boxes at stride 4, and a high-resolution residual on the mask logits.  Differences from SAM at run time: the input may
have any size that is a multiple of 32, and coordinates are always normalised by 1024.

Written from a description of the architecture.  Needs torch and safetensors.
Licence: MIT OR Apache-2.0.
"""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

COORD_SCALE = 1024.0
STRIDE = 16
PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
WIDTHS = (128, 96, 64, 32, 16)


def up2(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class ConvBn(nn.Module):
    """Convolution without bias + batch norm.  `frozen`: running statistics are always used (the
    norm is folded into the convolution); otherwise batch statistics while training."""

    def __init__(self, cin, cout, k=1, stride=1, pad=0, groups=1, frozen=True):
        super().__init__()
        self.c = nn.Conv2d(cin, cout, k, stride, pad, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout, eps=1e-5)
        self.frozen = frozen
        if frozen:
            self.bn.weight.requires_grad_(False)

    def forward(self, x):
        if self.training and not self.frozen:
            return self.bn(self.c(x))
        scale = self.bn.weight * torch.rsqrt(self.bn.running_var + self.bn.eps)
        bias = self.bn.bias - self.bn.running_mean * scale
        weight = self.c.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, bias, self.c.stride, self.c.padding, 1, self.c.groups)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of an NCHW tensor."""

    def __init__(self, c, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))
        self.eps = eps

    def forward(self, x):
        y = F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


# --------------------------------------------------------------------------- TinyViT encoder

class PatchEmbed(nn.Module):
    def __init__(self):
        super().__init__()
        self.seq = nn.Sequential(ConvBn(3, 32, 3, 2, 1), nn.GELU(), ConvBn(32, 64, 3, 2, 1))

    def forward(self, x):
        t2 = self.seq[1](self.seq[0](x))
        return self.seq[2](t2), t2


class MBConv(nn.Module):
    def __init__(self, dim, expand=4):
        super().__init__()
        hid = dim * expand
        self.conv1 = ConvBn(dim, hid)
        self.conv2 = ConvBn(hid, hid, 3, 1, 1, groups=hid)
        self.conv3 = ConvBn(hid, dim)

    def forward(self, x):
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        stride = 1 if cout in (320, 448, 576) else 2
        self.conv1 = ConvBn(cin, cout)
        self.conv2 = ConvBn(cout, cout, 3, stride, 1, groups=cout)
        self.conv3 = ConvBn(cout, cout)

    def forward(self, x):
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowAttention(nn.Module):
    """Attention inside a window of w*w tokens with a learnt bias per (|dy|, |dx|)."""

    def __init__(self, dim, heads, w):
        super().__init__()
        self.heads, self.w = heads, w
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, w * w))
        pos = torch.arange(w)
        y, x = torch.meshgrid(pos, pos, indexing="ij")
        y, x = y.reshape(-1), x.reshape(-1)
        idx = (y[:, None] - y[None]).abs() * w + (x[:, None] - x[None]).abs()
        self.register_buffer("idx", idx, persistent=False)

    def forward(self, x):
        n, t, c = x.shape
        qkv = self.qkv(self.norm(x)).view(n, t, self.heads, 3, -1).permute(3, 0, 2, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        logits = (q * (q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)
        attn = (logits + self.attention_biases[:, self.idx].to(logits.dtype)).softmax(-1)
        y = (attn.to(v.dtype) @ v).transpose(1, 2).reshape(n, t, c)
        return self.proj(y)


class Mlp(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class TinyViTBlock(nn.Module):
    def __init__(self, dim, heads, w):
        super().__init__()
        self.w = w
        self.attn = WindowAttention(dim, heads, w)
        self.local_conv = ConvBn(dim, dim, 3, 1, 1, groups=dim)
        self.mlp = Mlp(dim)

    def forward(self, x):  # [N, C, H, W]
        n, c, h, wd = x.shape
        w = self.w
        t = x.permute(0, 2, 3, 1)
        if h == w and wd == w:
            y = self.attn(t.reshape(n, h * wd, c)).view(n, h, wd, c)
        else:
            ph, pw = (-h) % w, (-wd) % w
            y = F.pad(t, (0, 0, 0, pw, 0, ph)) if ph or pw else t
            hh, ww = (h + ph) // w, (wd + pw) // w
            y = y.reshape(n, hh, w, ww, w, c).transpose(2, 3).reshape(-1, w * w, c)
            y = self.attn(y).view(n, hh, ww, w, w, c).transpose(2, 3)
            y = y.reshape(n, h + ph, wd + pw, c)[:, :h, :wd]
        x = self.local_conv((t + y).permute(0, 3, 1, 2))
        t = x.permute(0, 2, 3, 1)
        return (t + self.mlp(t)).permute(0, 3, 1, 2)


class Layer(nn.Module):
    def __init__(self, blocks, downsample=None):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if downsample is not None:
            self.downsample = downsample


class ImageEncoder(nn.Module):
    def __init__(self, dims=(64, 128, 160, 320), depths=(2, 2, 6, 2), heads=(2, 4, 5, 10), windows=(7, 7, 14, 7)):
        super().__init__()
        self.patch_embed = PatchEmbed()
        layers = [Layer([MBConv(dims[0]) for _ in range(depths[0])], PatchMerging(dims[0], dims[1]))]
        for i in (1, 2, 3):
            blocks = [TinyViTBlock(dims[i], heads[i], windows[i]) for _ in range(depths[i])]
            layers.append(Layer(blocks, PatchMerging(dims[i], dims[i + 1]) if i < 3 else None))
        self.layers = nn.ModuleList(layers)
        self.neck = nn.Sequential(nn.Conv2d(dims[3], 256, 1, bias=False), LayerNorm2d(256),
                                  nn.Conv2d(256, 256, 3, padding=1, bias=False), LayerNorm2d(256))

    def forward(self, x):
        x, t2 = self.patch_embed(x)
        taps = []
        for i, layer in enumerate(self.layers):
            for block in layer.blocks:
                x = block(x)
            if i < 2:
                taps.append(x)
            if i < 3:
                x = layer.downsample(x)
        return {"t2": t2, "t4": taps[0], "t8": taps[1], "t16": self.neck(x)}


# ------------------------------------------------------- prompt encoder and SAM mask decoder

class PositionEmbedding(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, 128))

    def forward(self, xy):
        """`xy` in units of COORD_SCALE.  Always computed from the current matrix, in f32."""
        with torch.autocast(xy.device.type, enabled=False):
            c = (2 * xy.float() - 1) @ self.positional_encoding_gaussian_matrix.float()
            c = 2 * math.pi * c
            return torch.cat([c.sin(), c.cos()], -1)


class PromptEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.pe_layer = PositionEmbedding()
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, 256) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, 256)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, 2), LayerNorm2d(4), nn.GELU(), nn.Conv2d(4, 16, 2, 2), LayerNorm2d(16), nn.GELU(),
            nn.Conv2d(16, 256, 1))
        self.no_mask_embed = nn.Embedding(1, 256)

    def dense_pe(self, h, w, offset=(0.0, 0.0)):
        """[256, h, w]; `offset` = (x, y) in pixels, or a tensor [N, 2] of them for [N, 256, h, w]."""
        m = self.pe_layer.positional_encoding_gaussian_matrix
        offset = torch.as_tensor(offset, device=m.device, dtype=torch.float32)[..., None]
        y = ((torch.arange(h, device=m.device) + 0.5) * STRIDE + offset[..., 1, :]) / COORD_SCALE
        x = ((torch.arange(w, device=m.device) + 0.5) * STRIDE + offset[..., 0, :]) / COORD_SCALE
        shape = offset.shape[:-2] + (h, w)
        grid = torch.stack([x[..., None, :].expand(shape), y[..., :, None].expand(shape)], -1)
        return self.pe_layer(grid).movedim(-1, -3)

    def sparse(self, points=None, labels=None, boxes=None):
        """points [P,n,2] (x,y), labels [P,n] (1 positive, 0 negative, -1 padding), boxes [P,4] xyxy."""
        out = []
        if points is not None:
            pe = self.pe_layer((points + 0.5) / COORD_SCALE)
            if boxes is None:  # SAM appends a padding point when there is no box
                pe = torch.cat([pe, torch.zeros_like(pe[:, :1])], 1)
                labels = torch.cat([labels, -torch.ones_like(labels[:, :1])], 1)
            lab = labels[..., None]
            pe = torch.where(lab == -1, torch.zeros_like(pe), pe)
            pe = pe + (lab == -1) * self.not_a_point_embed.weight[None]
            pe = pe + (lab == 0) * self.point_embeddings[0].weight[None]
            pe = pe + (lab == 1) * self.point_embeddings[1].weight[None]
            out.append(pe)
        if boxes is not None:
            pe = self.pe_layer((boxes.reshape(-1, 2, 2) + 0.5) / COORD_SCALE)
            out.append(pe + torch.stack([self.point_embeddings[2].weight[0], self.point_embeddings[3].weight[0]]))
        return torch.cat(out, 1)


class Attention(nn.Module):
    def __init__(self, dim=256, heads=8, rate=1):
        super().__init__()
        inner = dim // rate
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def split(self, x):
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)

    def forward(self, q, k, v):
        q, k, v = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        a = ((q * (q.shape[-1] ** -0.5)) @ k.transpose(-2, -1)).softmax(-1)
        return self.out_proj((a.to(v.dtype) @ v).transpose(1, 2).flatten(2))


class MlpBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.lin1 = nn.Linear(256, 2048)
        self.lin2 = nn.Linear(2048, 256)

    def forward(self, x):
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first = first
        self.self_attn = Attention()
        self.norm1 = nn.LayerNorm(256)
        self.cross_attn_token_to_image = Attention(rate=2)
        self.norm2 = nn.LayerNorm(256)
        self.mlp = MlpBlock()
        self.norm3 = nn.LayerNorm(256)
        self.norm4 = nn.LayerNorm(256)
        self.cross_attn_image_to_token = Attention(rate=2)

    def forward(self, q, k, qpe, kpe):
        if self.first:
            q = self.self_attn(q, q, q)
        else:
            qq = q + qpe
            q = q + self.self_attn(qq, qq, q)
        q = self.norm1(q)
        q = self.norm2(q + self.cross_attn_token_to_image(q + qpe, k + kpe, k))
        q = self.norm3(q + self.mlp(q))
        k = self.norm4(k + self.cross_attn_image_to_token(k + kpe, q + qpe, q))
        return q, k


class TwoWayTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([TwoWayBlock(True), TwoWayBlock(False)])
        self.final_attn_token_to_image = Attention(rate=2)
        self.norm_final_attn = nn.LayerNorm(256)

    def forward(self, q, k, kpe):
        qpe = q
        for layer in self.layers:
            q, k = layer(q, k, qpe, kpe)
        q = self.norm_final_attn(q + self.final_attn_token_to_image(q + qpe, k + kpe, k))
        return q, k


class LinearStack(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, a, b, c):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b), nn.Linear(b, b), nn.Linear(b, c)])

    def forward(self, x):
        return self.layers[2](F.relu(self.layers[1](F.relu(self.layers[0](x)))))


class MaskDecoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, 256)
        self.mask_tokens = nn.Embedding(4, 256)
        self.output_upscaling = nn.Sequential(nn.ConvTranspose2d(256, 64, 2, 2), LayerNorm2d(64), nn.GELU(),
                                              nn.ConvTranspose2d(64, 32, 2, 2), nn.GELU())
        self.output_hypernetworks_mlps = nn.ModuleList([LinearStack(256, 256, 32) for _ in range(4)])
        self.iou_prediction_head = LinearStack(256, 256, 4)

    def forward(self, src, pe, sparse):
        """src [P,256,h,w] (dense prompt already added), pe [P or 1,256,h,w], sparse [P,t,256].
        Returns low-resolution logits [P,4,4h,4w], IoUs [P,4], mask tokens [P,4,256]."""
        p, c, h, w = src.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(p, -1, -1)
        tokens = torch.cat([tokens, sparse.to(tokens.dtype)], 1)
        k = src.flatten(2).transpose(1, 2)
        kpe = pe.flatten(2).transpose(1, 2)
        q, k = self.transformer(tokens, k, kpe)
        up = self.output_upscaling(k.transpose(1, 2).reshape(p, c, h, w))
        mask_tokens = q[:, 1:5]
        hyper = torch.stack([m(mask_tokens[:, i]) for i, m in enumerate(self.output_hypernetworks_mlps)], 1)
        low = (hyper @ up.flatten(2).to(hyper.dtype)).view(p, 4, 4 * h, 4 * w)
        return low, self.iou_prediction_head(q[:, 0]), mask_tokens


# --------------------------------------------------------- decoder of the maps, mask refiner

class InstanceDecoder(nn.Module):
    def __init__(self, widths=WIDTHS):
        super().__init__()
        skips = (256, 128, 64, 32, 3)
        self.lateral = nn.ModuleList([nn.Conv2d(s, w, 1) for s, w in zip(skips, widths)])
        outs = widths[1:] + widths[-1:]
        self.blocks = nn.ModuleList([
            nn.ModuleList([ConvBn(w, w, 3, 1, 1, frozen=False), ConvBn(w, o, 3, 1, 1, frozen=False)])
            for w, o in zip(widths, outs)])
        self.out_conv = nn.Conv2d(widths[-1], 3, 1)

    def forward(self, taps, image):
        """Returns logits of the maps and the features of strides 4 and 2."""
        skips = [taps["t16"], taps["t8"], taps["t4"], taps["t2"], image]
        feats, x = [], None
        for i, skip in enumerate(skips):
            y = self.lateral[i](skip)
            x = y if x is None else up2(x) + y
            for block in self.blocks[i]:
                x = F.relu(block(x))
            feats.append(x)
        return self.out_conv(x), feats[2], feats[3]


BOX_STRIDE = 4
BOX_UNIT = 16.0  # pixels that a raw distance of 0 stands for


class BoxDecoder(nn.Module):
    """For every cell of stride 4 the box of the object it lies in: the logit of how well the box fits (its expected IoU)
    and the distances to its left, top, right and bottom edge (after FCOS, Tian et al. 2019)."""

    def __init__(self, width=96):
        super().__init__()
        self.lateral = nn.ModuleList([nn.Conv2d(c, width, 1) for c in (256, 128, 64, WIDTHS[3])])
        self.blocks = nn.ModuleList([
            nn.ModuleList([ConvBn(width, width, 3, 1, 1, frozen=False) for _ in range(2)]) for _ in range(3)])
        self.out_conv = nn.Conv2d(width, 5, 1)
        nn.init.constant_(self.out_conv.bias, 0.0)
        nn.init.constant_(self.out_conv.bias[:1], -2.0)

    def forward(self, taps, f4):
        """[N,5,H/4,W/4]: logit of the fit, logarithms of the distances in units of BOX_UNIT."""
        x = None
        for i, skip in enumerate((taps["t16"], taps["t8"], taps["t4"])):
            y = self.lateral[i](skip)
            x = y if x is None else up2(x) + y
            if i == 2:
                x = x + self.lateral[3](f4)
            for block in self.blocks[i]:
                x = F.relu(block(x))
        return self.out_conv(x)


def boxes_of(raw):
    """Fit [N,h,w] (0..1) and boxes [N,4,h,w] (x0, y0, x1, y1: edges, in pixels of the input) of the decoder's output."""
    raw = raw.float()
    h, w = raw.shape[2:]
    d = raw[:, 1:].clamp(-6, 5).exp() * BOX_UNIT
    y = ((torch.arange(h, device=raw.device) + 0.5) * BOX_STRIDE)[:, None]
    x = (torch.arange(w, device=raw.device) + 0.5) * BOX_STRIDE
    boxes = torch.stack([x - d[:, 0], y - d[:, 1], x + d[:, 2], y + d[:, 3]], 1)
    return raw[:, 0].sigmoid(), boxes


class MaskRefiner(nn.Module):
    def __init__(self, c4=WIDTHS[3], c2=WIDTHS[4], dim=16):
        super().__init__()
        self.feat4 = nn.Conv2d(c4, dim, 1)
        self.feat2 = nn.Conv2d(c2, dim, 1)
        self.conv3 = nn.Conv2d(dim, dim, 3, padding=1)
        self.mlp = LinearStack(256, 128, dim)

    def features(self, f4, f2):
        # 1x1 convolution and bilinear up-sampling commute; the cheaper order is used
        return self.conv3(F.gelu(up2(self.feat4(f4)) + self.feat2(f2)))


class CytomaskT(nn.Module):
    def __init__(self):
        super().__init__()
        self.image_encoder = ImageEncoder()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()
        self.instance_decoder = InstanceDecoder()
        self.mask_refiner = MaskRefiner()
        self.box_decoder = BoxDecoder()

    def encode(self, x):
        """x: normalised [N,3,H,W].  Returns taps with the map logits, the box decoder's output and refiner features g."""
        taps = self.image_encoder(x)
        maps, f4, f2 = self.instance_decoder(taps, x)
        taps.update(maps=maps, boxes=self.box_decoder(taps, f4), g=self.mask_refiner.features(f4, f2))
        return taps

    def decode(self, embedding, pe, sparse):
        """embedding, pe: [P,256,h,w] per prompt.  Low-resolution logits, IoUs, refiner weights [P,4,16]."""
        src = embedding + self.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
        low, iou, tok = self.mask_decoder(src, pe, sparse)
        return low, iou, self.mask_refiner.mlp(tok)


def init_from_sam(model, state):
    """Loads a vit_t SAM checkpoint; the heads that are not part of the model are ignored."""
    state = {k: v for k, v in state.items() if not k.startswith(("image_encoder.head", "image_encoder.norm_head"))}
    missing, unexpected = model.load_state_dict(state, strict=False)
    bad = [k for k in missing if not k.startswith(("instance_decoder.", "mask_refiner.", "box_decoder."))]
    if bad or unexpected:
        raise ValueError(f"checkpoint does not fit: missing {bad[:5]}, unexpected {list(unexpected)[:5]}")
    # a residual that starts at zero
    nn.init.zeros_(model.mask_refiner.mlp.layers[2].weight)
    nn.init.zeros_(model.mask_refiner.mlp.layers[2].bias)


def export_state(model, dtype=torch.float16):
    """State dict for export: contiguous, floating tensors in `dtype`."""
    out = {}
    for k, v in model.state_dict().items():
        if k.endswith("num_batches_tracked"):
            continue
        v = v.detach().clone()
        out[k] = (v.to(dtype) if v.is_floating_point() else v).contiguous(memory_format=torch.contiguous_format)
    return out


def load_exported(path):
    """Model in f32 and evaluation mode from an exported safetensors file."""
    from safetensors.torch import load_file
    model = CytomaskT()
    state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [k for k in missing if not k.endswith("num_batches_tracked") and not k.startswith("box_decoder.")]
    if missing or unexpected:
        raise ValueError(f"missing {missing[:5]}, unexpected {list(unexpected)[:5]}")
    return model.eval()
